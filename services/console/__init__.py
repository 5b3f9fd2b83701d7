"""The console: pages on which people review replies and see which versions there are and how everything stands.

door.py      who may come in: passwords, forms of other sites, headers of every answer
app.py       routes and their pages
pages/       the templates and their style sheet; no script runs in them
process.py   `driftline console`
"""
