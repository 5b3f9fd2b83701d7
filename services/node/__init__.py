"""An inference node: verifies versions, loads them into one engine, lets requests through to READY ones only."""
