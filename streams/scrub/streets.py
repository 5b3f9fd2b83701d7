"""The vocabulary of postal addresses."""

from __future__ import annotations

import re

SUFFIXES = frozenset(
    """street st avenue ave av road rd lane ln drive dr court ct boulevard blvd way place pl square sq terrace ter
    circle cir parkway pkwy highway hwy trail trl alley aly close crescent cres gardens grove row walk mews hill
    park loop plaza path run ridge point pike turnpike crossing xing view vista heights manor meadow meadows mill
    mills mountain mountains oval pass pine pines port ports radial ramp ranch rapid rapids rest river shoal
    shoals shore shores spring springs spur squares station stravenue stream summit throughway trace track
    trafficway tunnel union unions valley valleys viaduct village villages ville walks wall well wells bend bluff
    bluffs branch bridge brook brooks burg burgs bypass camp canyon cape causeway center centers centre cliff
    cliffs club common commons corner corners course cove coves creek crest crossroad crossroads curve dale dam
    divide estate estates expressway extension extensions fall falls ferry field fields flat flats ford fords
    forest forge forges fork forks fort freeway garden gateway glen glens green greens groves harbor harbors haven
    highlands hollow inlet island islands isle junction junctions key keys knoll knolls lake lakes land landing
    light lights loaf lock locks lodge mall mission motorway mount neck orchard overpass parks passage prairie
    quay wharf wynd esplanade parade promenade rise vale yard streets avenues roads lanes drives courts places
    parkways terraces circles crescents alleys nagar marg vihar colony enclave zila ganj chowk terrasse str""".split()
)
"""What ends the name of an English or Indian street."""

STRONG = frozenset(
    """street st avenue ave road rd lane ln drive dr court ct boulevard blvd parkway pkwy highway hwy terrace
    crescent turnpike stravenue throughway expressway causeway nagar marg""".split()
)
"""Suffixes that count in lower case and behind ordinary words."""

VAGUE = frozenset(
    """way place square circle close row walk hill park loop path run point pike view pass pine port ramp rapid rest
    river shore spring spur station stream summit track union valley village wall well wells bend branch bridge
    camp cape center centre club common commons corner course cover creek crest curve dam divide estate extension
    extensions fall falls field fields flat flats forest fork fort garden gardens gateway green harbor island
    islands key keys lake land landing light lights lock locks lodge mall mission mount mountain neck oval
    overpass passage plaza quay ranch rise trail trace tunnel yard st dr ct ter av pl sq cir springs heights manor
    mill mills meadow union unions course colony""".split()
)
"""Suffixes that are words of their own: they need a capital."""

CLEAR = SUFFIXES - VAGUE
"""Suffixes that are hardly ever anything else, if capitalised."""

PREFIXES = frozenset(
    """transv bv ctra urb fracc mkr prov trav heol rue avenue av boulevard bd place chemin impasse allee quai route
    cours passage villa cite sentier via viale
    piazza piazzetta corso vicolo largo strada calle avenida avda plaza paseo carrer camino carretera rua travessa
    praca alameda ulica ul al aleja aleje prospekt ulitsa bulevar trg jalan gang intrarea aleea bulevardul jardim
    vila quadra colonia barrio carrera cra diagonal transversal pasaje privada cerrada andador lugar urbanizacion
    pl duong pho khu phuong xa prosp jl soi square leoforos odos rruga utca callejon ruta rotonda soseaua sos
    montee peatonal conjunto ladeira estacao aeroporto autopista prolongacion circuito cesta ulitsa bulvar
    naberejnaa nab prospekt pereulok per proezd shosse sosse val vul vulitsa provulok cho so retorno cerro
    viaducto eje ampliacion residencial sector manzana fraccionamiento largo viela vereda beco parque esplanade
    faubourg sentier clos hameau lotissement residence contrada localita frazione salita piazzale strada lungomare
    borgo str poligono praceta lieu-dit bul jiron jr cll kr drumul rang canale calea spacerowa osiedle os
    kampung lorong jln persiaran lebuh taman
    gali mohalla sadak marg thanon trok barrio manzana circunvalacion malecon pasadizo psje rambla via""".split()
)
"""Street words that stand before the name."""

NUMBERED = frozenset("av avda road street calle carrera cra cll kr avenida diagonal transversal soi jalan".split())
"""Street words behind which a number is the name."""

NUMBERED_PARTS = frozenset(
    "bldg building villa plot stand block blk unit room door flat road street lot tower level floor sector "
    "phase".split()
)
"""Parts of an address that are written in front of their number."""

TAILS = frozenset(
    """ulica utca utja ut korut koz setany namesti nam nabrezi trida alle prospekti pr kucesi cad caddesi sok sokak
    mah mahallesi bulvari trg cesta iela gatve str ter kuc kuce qesebesi prospekti kucheasi xiyaboni ithafa indlela
    umgwaqo g tn mnt pst tanav maantee puiestee vei veien vagen vag plats gata
    gatan pasaji dolina obala setaliste polje naselje odos leoforos plateia ulitsa prospekt rayonu seheri""".split()
)
"""Street words of other languages that stand behind the name and before the number."""
WAYS = PREFIXES | TAILS
"""Words for street in languages other than English."""

COMPOUNDS = tuple(
    """strasse gasse allee platz weg damm ufer ring steig straat laan plein gracht kade dreef singel gatan vagen gata
    vej gade veien vegen veg gaten katu kuja polku tie braut stigur utca vika hagen ulice caddesi sokak moor
    holz dijk wei stien
    torg torget brinken backen stigen toppen svingen boulevard pad hof steeg markt ranta rinne kai grand str
    bulevardi bulevard bakken skogen jordet lia haugen marken skovvej tunet hogda alleen parken torvet stranden
    agergade hofer winkel kamp kant zijde plantsoen hoek baan burg wiese wiesen feld rain allee chaussee stieg
    steige zeile twiete""".split()
)
"""Endings of words that are streets by themselves."""

UNITS = frozenset(
    "apt apartment suite ste unit flat fl floor room rm building bldg block box door postbox postfach apartado bp "
    "tower wing studio ap bl sc".split()
)
"""What a number of a flat, a floor or a box stands behind."""

DETAILS = UNITS | frozenset(
    """moo tambon amphoe conj bte edif edificio depto departamento piso puerta esc escalera int interior of oficina
    apartamento casa bloque
    torre lote lt mz mza km lot phase blok kat daire etg etage stiege tur top haus wohnung wohnblock scara et etaj
    ap sc m d dom kv str korp stroenie pom of byt patro vchod emelet em ajto lepcsohaz lgh tr uppgang as rappu bnr
    box cp cep pb ps postboks bus batiment bat escalier appartement appt scala palazzina interno bloco
    andar sala dcha izda izq esq dto bat os
    nave local lokal lok lj kom no nr num numero so ngo ngach hem to khom xa phuong quan huyen tinh thon ward
    barangay brgy purok sitio
    rt rw kel kec kab gg c j b p k s v n""".split()
)
"""What a number within an address stands behind, in many languages, abbreviated or not."""

HOUSE = frozenset("no nr h.no h house plot door hno flat".split())
FLATS = frozenset("apt apartment suite ste box postbox postfach apartado".split())
"""Units that are an address by themselves."""

LEADS = frozenset(
    "address adresse lieferadresse rechnungsadresse anschrift direccion indirizzo endereco adres adresa osoite "
    "adress alamat adresim adresse adressa adresin adreso adrese aadress heimilisfang cyfeiriad adreca helbide "
    "diefthinsi diefthynsi dieuthynse anwani tirahan manzil pata thikana billing lakcim lakhely "
    "domiciliu prebivalisce bopaelu asunto wohnanschrift ubicacion place home house flat apartment location "
    "office domicile domicilio residence wohnort adresa morada "
    "osoitteeni cim lieferung livraison entrega spedizione bezorging levering wysylka dostawa".split()
)
"""Nouns behind which an address stands, after "is", "at" or a colon."""
LEAD_PAIRS = frozenset(
    "deliver to,delivered to,ship to,shipped to,it to,moved to,move to,live at,live in,lives at,lives in,living "
    "at,living in,located at,is at,up from,stay at,staying at,sent to,send to,them to,order to,parcel to,package "
    "to,wohne in,vivo en,habite au,replacement to,resend it,based at,collect from,drop at,went to,address was,house "
    "is,was at,enviar a,envialo a,livrer au,livrer a,spedire a,entrega em,bezorgen op,versand an,lieferung "
    "an,liefern "
    "an,dostawa na,pickup at,pick up,parcel at,shipping to,delivery to,billed to,registered at,residing at,resides "
    "at,relocated to,moving to,should reach,must reach,fica em,left outside,neighbour "
    "at,neighbor at,outside of,visit at,site at,dropped at,live on,lives on,parents' place,deliver at,dia "
    "chi".split(",")
)
"""Pairs of words behind which an address may stand."""

LEAD_VERBS = frozenset(
    "wohne wohnen habite habitons vivo vivimos abito abitiamo moro moramos woon wonen mieszkam bor asun bydlim byvam "
    "lakom "
    "livrer livrez envoyer resend based collect spedire spedite bezorgen bezorg entrega entregar enviar envialo "
    "versand lieferung liefern "
    "dostawa "
    "locuiesc oturuyorum tinggal zivim elan dzivoju gyvenu nakatira".split()
)
"""Verbs of other languages behind which somebody's address stands."""

HOUSES = frozenset("h.no hno house plot door".split())
"""What a house number stands behind: `HOUSE` in front of an address, `HOUSES` by itself."""

MILITARY = frozenset("psc uss usns usnv uscgc unit cmr".split())
PLACES = frozenset("on at in of near off to from and corner lives live living located around along".split())
"""Words before a street that has no number."""

FIRST = MILITARY | {"corner"}
"""What an address without a number may begin with, street words aside."""

PARTICLES = frozenset(
    "de la le les du des del della delle dei di da do dos das van von der den el los las saint san santa sao d l sur "
    "y upon of the".split()
)
CODES = re.compile(
    r"(?:\d{3,6}(?:-\d{3,4})?|[A-Za-z]{1,2}\d[A-Za-z\d]?|\d[A-Za-z]{2}|[A-Za-z]\d[A-Za-z]|\d{4}[A-Z]{2})"
)
"""Postal codes and the halves of British and Canadian ones."""

STATES = frozenset(
    """al ak az ar ca co ct de fl ga hi id il in ia ks ky la me md ma mi mn ms mo mt ne nv nh nj nm ny nc nd oh ok or
    pa ri sc sd tn tx ut vt va wa wv wi wy dc us usa uk""".split()
)
ANYWHERE = (
    PREFIXES
    | TAILS
    | MILITARY
    | LEAD_VERBS
    | LEADS
    | frozenset(
        "apt apartment suite ste flat box postbox postfach apartado h.no hno house plot corner deliver delivered "
        "ship shipped moved live lives living located pick staying lieferadresse rechnungsadresse anschrift "
        "direccion indirizzo endereco adres adresa osoite adress alamat adresse address place".split()
    )
)
"""Words that are evidence in lower case too."""

EVIDENCE = (
    SUFFIXES
    | PREFIXES
    | UNITS
    | MILITARY
    | HOUSE
    | LEADS
    | TAILS
    | LEAD_VERBS
    | frozenset(
        {
            "quan",
            "villa",
            "stand",
            "bldg",
            "blk",
            "door",
            "nave",
            "phuong",
            "barangay",
            "brgy",
            "purok",
            "sitio",
            "huyen",
            "sector",
            "reach",
            "outside",
            "neighbour",
            "neighbor",
            "bring",
            "visit",
            "fica",
            "entre",
            "corner",
            "deliver",
            "delivered",
            "ship",
            "shipped",
            "moved",
            "live",
            "lives",
            "living",
            "located",
            "pick",
            "staying",
        }
    )
) - frozenset({"the", "of"})
"""Words without one of which, or a compound, a text holds no address."""

_UK = re.compile(r"(?:[A-Za-z]{1,2}\d{1,2}|[A-Za-z]{1,2}\d[A-Za-z]) ?\d[A-Za-z]{2}(?![A-Za-z0-9])")
_CANADA = re.compile(r"[A-Za-z]\d[A-Za-z][ \-]?\d[A-Za-z]\d(?![A-Za-z0-9])")
_STATE_BEFORE = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2},? {0,3}\n?\s{0,4}$")
_FIVE = re.compile(r"\d{5}(?:-\d{4})?(?![A-Za-z0-9\-])")


def find_codes(text: str, classes: bytes) -> list[tuple[int, int, str]]:
    """Spans of postal codes that show by their form (British, Canadian, American behind a state)."""
    found: list[tuple[int, int, str]] = []
    at = classes.find(b"a0")
    while at >= 0:
        start = at - 1 if at and classes[at - 1] == ord("a") else at
        if not start or classes[start - 1] == ord(" "):
            match = _UK.match(text, start) or _CANADA.match(text, start)
            if match and (match[0][0].isupper() or " " in match[0]):
                found.append((*match.span(), "ZIP"))
        at = classes.find(b"a0", at + 1)
    at = classes.find(b" 00000")
    while at >= 0:
        match = _FIVE.match(text, at + 1)
        if match and _STATE_BEFORE.search(text, max(0, at - 10), at + 1):
            found.append((*match.span(), "ZIP"))
        at = classes.find(b" 00000", at + 1)
    return found
