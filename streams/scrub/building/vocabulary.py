"""Words that generated addresses and turns are made of; written for this project."""

from __future__ import annotations

STATES = (
    "AL AK AZ AR CA CO CT DE FL GA HI ID IL IN IA KS KY LA ME MD MA MI MN MS MO MT NE NV NH NJ NM NY NC ND OH OK OR "
    "PA RI SC SD TN TX UT VT VA WA WV WI WY DC Texas Ohio California Florida Maine Oregon Nevada Georgia Iowa Utah"
).split()
"""American states."""

COUNTRIES = (
    "Germany France Spain Italy Poland Ireland Austria Belgium Norway Sweden Denmark Finland Portugal Greece Hungary "
    "Romania Bulgaria Croatia Serbia Turkey Egypt Morocco Tunisia Kenya Nigeria Ghana Uganda Zambia Namibia Botswana "
    "Ethiopia Senegal Cameroon Jordan Lebanon Oman Qatar Bahrain Kuwait UAE Iran Iraq India Pakistan Bangladesh Nepal "
    "China Japan Korea Taiwan Vietnam Thailand Laos Cambodia Malaysia Indonesia Philippines Australia Fiji Canada USA "
    "UK England Scotland Wales Mexico Guatemala Honduras Panama Colombia Ecuador Peru Bolivia Chile Argentina Uruguay "
    "Paraguay Brazil Venezuela Cuba Jamaica Trinidad Barbados Iceland Malta Cyprus Latvia Lithuania Estonia Ukraine "
    "Georgia Armenia Kazakhstan Mongolia"
).split()
"""Countries."""

DAYS = (
    "monday tuesday wednesday thursday friday saturday sunday tomorrow today Monday Tuesday Friday mon tue fri sat "
    "12/04 3.5. 2024-05-11 may|5 5|may 12th|of|june July|3 3|July March|14,|2025 21/11/2024 next|week 1st|of|may"
).split()
"""Days and dates, a bar for a space."""

HOURS = ("9 10:30 5pm 14:00 8|am noon 17h 7.30 9:15am 18|Uhr 3|o'clock 6:45 11pm").split()
"""Times of day, a bar for a space."""

GENERIC = (
    "Oak Pine Maple Cedar Elm Church Mill Station High Park King Queen Victoria Market Bridge School Garden Lake "
    "River Spring Sunset Hill Valley Forest Meadow Castle Abbey Chapel Harbour North South East West Green Liberty "
    "Union Main Central Republic Independence Airport Ring Industrial Old New Upper Lower Long Broad Cross Rose Lily "
    "Palm Coconut Lotus Mango Jasmine Golden Silver Royal Crown Orchard Quarry Windmill Canal Dock Temple Mosque "
    "University College"
).split()
"""What streets and houses everywhere are named after."""

HOUSES = (
    "Cottage House Lodge Court Tower Towers Villa Heights Residence Building Plaza Apartments Mansion Hall Place Gate "
    "Point Gardens Centre Center Complex Chambers Mansions Manor Barn Croft Arcade Terraces Flats Estate Block"
).split()
"""What a named house ends in."""

MARKS = (
    "Tower Block Stage Phase Section Sector Zone Wing Gate Stairs Level Pod Cell Ward Lane Row Cluster Court"
).split()
"""What numbered parts of odd addresses are called."""

GOODS = (
    "charger laptop headphones blender jacket sneakers router kettle tablet printer monitor backpack camera speaker "
    "keyboard mouse desk chair lamp sofa mattress toaster oven fridge dryer vacuum drill tent bike helmet watch ring "
    "dress shirt boots gloves scarf hat coat jeans perfume shampoo vitamins puzzle console voucher ticket coupon "
    "invoice adapter cable battery screen case washing|machine dishwasher microwave waschmaschine kuhlschrank "
    "geschirrspuler staubsauger mikrowelle lave-linge aspirateur frigo four micro-ondes lavadora nevera aspiradora "
    "licuadora horno lavatrice frigorifero forno lavastoviglie aspirapolvere geladeira fogao liquidificador "
    "wasmachine koelkast stofzuiger pralka lodowka odkurzacz zmywarka tvattmaskin kylskap dammsugare camasir|makinesi "
    "buzdolabi supurge mosogep huto masina|de|spalat hladnjak pesukone jaakaappi kulkas mesin|cuci ventilador "
    "ventilator duvet curtain rug humidifier dehumidifier thermostat doorbell projector earbuds powerbank stroller "
    "crib pram blazer hoodie sandals leggings serum mascara lipstick conditioner supplements protein coffee|machine "
    "espresso grinder"
).split()
"""Goods in many languages, a bar for a space."""

TOWN_HEADS = (
    "San Santa St Saint New Old Bad Port Fort El La Los Al Nova Novi Sao Ain Ban Great Upper Kota North East"
).split()
"""What towns begin with."""

TOWN_TAILS = ("City Beach Hills Park East West Town Springs Bay Falls Valley Centro Sud Nord").split()
"""What towns end in."""

TOWN_JOINTS = ("am an|der sur de upon bei nad del i do").split()
"""What stands inside the names of towns; a bar for a space."""

HOUSE_HEADS = ("Edificio Residence Torre Villa The Haus Palazzo Casa Condominio Menara Wisma Chalet Gedung").split()
"""What a named house begins with."""

UNIT_WORDS = ("number no flat apt unit room house door block plot lot floor piso etage kv bus casa").split()
"""What a flat or a number is said behind."""

ROAD_WORDS = ("Street Road Close Court Lane Ave Way Drive Terrace Gardens Walk Grove St Rd").split()
"""Words for street."""

FEW_ROAD_WORDS = ("Street Road Close Court Lane Ave Way Drive Terrace Walk").split()
"""Words for street behind a number."""

WORDY = (
    "art miles dawn frank mark august april may june penny violet olive lily hope faith joy grace rose will bill "
    "bishop sunday rusty ginger basil robin iris ivy daisy jasmine ruby pearl amber crystal summer autumn sky rich "
    "chase hunter mason drew pat rob bob sandy dusty rocky storm rain star angel chance justice prince duke earl "
    "baron king major page reed wade cliff glen dale heath forest brook river lane ford dean carter cooper parker "
    "taylor clay jade coral gem victor christian paris chelsea london jordan israel china india carolina georgia "
    "savannah sienna florence nacho paz sol luz blanca rosa dulce mercedes alba nieves consuelo june porsche wolf "
    "linde ernst gut bella mia made bayu putu intan"
).split()
"""First names that are ordinary words."""
