"""A labelled set of generated turns whose wording, names and formats the detectors were not built from."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import NamedTuple

WORDINGS = {
    "PERSON": (
        "could you put {} on the waiting list|the technician who came, {}, left a mess|"
        "my login was created by {}|please reach out to {} instead of me|it was {} who took the box|"
        "We promised {} a call back before noon|registered to {}|{} asked me to cancel the trip|tenant: {}|"
        "the joint account with {} is frozen|so sorry {}, that's on us|{} joined the chat|"
        "was the package handed to {}?"
    ),
    "EMAIL": (
        "write to {} from now on|{} is where i want the invoice|login mail {} not recognised|"
        "is it {} or something else?"
    ),
    "PHONE": (
        "ring me on {}|best to text {} after six|whatsapp {}|{} is my new cell|Rückruf bitte unter {}|"
        "mon portable est le {}"
    ),
    "CARD": ("visa {} got charged twice|i used {} for checkout|the card {} isn't mine anymore|Kreditkarte {}"),
    "IBAN": ("send the money back to {}|mein Konto ist {}|{} is the right account"),
    "NATIONAL_ID": ("my ssn: {}|social security no {}|tax id {}|national insurance {}"),
    "ADDRESS": ("deliver it to {}|i moved to {}|new place: {}|the flat is at {}|Lieferadresse: {}|billing address {}"),
    "DOB": ("birthday {}|i was born on {}|my date of birth is {}|geboren am {}|née le {}"),
    "ORDER_ID": ("order {} still missing|ref {}|case number {}|booking {} please cancel|invoice {} is wrong"),
    "ACCOUNT_ID": ("customer number {}|policy {}|member id: {}|account {} is blocked|my loyalty number is {}"),
    "SECRET": ("my password is {}|pwd: {}|the pass is {} but it fails|mot de passe : {}|token={}"),
    "OTP": ("code is {}|got {} by sms as verification code|the otp you sent: {}"),
    "IP": ("from {}|client at {} is blocked"),
    "ZIP": ("my postal code is {}|postcode {}"),
}
"""Label -> wordings, the value at {}."""

ORDINARY = [
    "The blue jacket in size M ran small, can I swap it for an L?",
    "Your Premium Plus plan renews every March",
    "Delivery took 12 days instead of 3-5",
    "I paid 1,249.00 EUR on 12 May",
    "Version 14.2.1 broke dark mode",
    "can i get 3 for the price of 2",
    "the train leaves at 18:45 from platform 9",
    "We need 25 chairs and 12 tables by Friday",
    "Your terms say refunds within 14 days",
    "Between 2019 and 2021 I had no issues",
    "the hotel is near the park",
    "Kann ich die Rechnung noch einmal haben?",
    "Quels sont vos horaires le samedi ?",
    "I tried three times and nothing happened",
    "it is 100 percent your fault",
]
PEOPLE = [
    "Vesna Strmole",
    "Ottilie Brandauer",
    "Kasimir",
    "Yrsa Fjeldstad",
    "Tunde Afolabi",
    "Bukola",
    "Ximo Llopis",
    "Jarmila Hrubá",
    "Anselm Quist",
    "Maarit Suokas",
    "Gwilym",
    "Deirdre Mulvaney",
    "Rhiannon Pask",
    "Zoltan Peterfi",
    "Nnenna Udeh",
    "Farrukh Zaman",
    "Suchitra Rao",
    "Bayarmaa",
    "Keir Dunmore",
    "Sanna-Mari Toivola",
    "Leocadia Prat",
    "Abelardo Quiroga",
    "Thorkild Ravn",
    "Ewelina Sroka",
    "Dragomir",
    "Ilse Vandamme",
    "Ngozi Anyanwu",
    "Ruaridh",
    "Hyun-woo Seo",
    "Thuy Linh",
    "Makoto Ishibashi",
    "Perpetua Ssali",
    "Ioana Dragulin",
    "Wolfram Hettich",
    "Maëlle Kerbrat",
]
PLACES = [
    "58 Thornbury Crescent",
    "Flat 3, 19 Mill Lane, Otley",
    "2210 Sycamore Blvd Apt 7, Provo UT 84601",
    "Am Lindenhain 23, 04177 Leipzig",
    "Gartenweg 8b",
    "17 rue du Moulin, 35000 Rennes",
    "Calle Alcalá 214, 28028 Madrid",
    "Via dei Mille 41, 80121 Napoli",
    "Rua das Flores 12",
    "Prinsengracht 301, 1016 GX Amsterdam",
    "Storgatan 14, 411 24 Göteborg",
    "ul. Kwiatowa 5/12",
    "Mannerheimintie 40",
    "Vesterbrogade 77",
    "Hlavná 3, 040 01 Košice",
    "101 Ocean View Drive",
]


class Turn(NamedTuple):
    """A turn and the value in it: (start, end, label), None in an ordinary turn."""

    text: str
    value: tuple[int, int, str] | None


def turns(seed: int = 5, each: int = 60) -> list[Turn]:
    """The set: so many turns a label, and every ordinary one."""
    rng = random.Random(seed)
    found = [Turn(text, None) for text in ORDINARY]
    for label, wordings in WORDINGS.items():
        for _ in range(each):
            wording, value = rng.choice(wordings.split("|")), VALUES[label](rng)
            if label in {"PERSON", "ADDRESS"} and rng.random() < 0.25:
                wording, value = wording.lower(), value.lower()
            start = wording.index("{}")
            found.append(Turn(wording.replace("{}", value), (start, start + len(value), label)))
    return found


def _form(*patterns: str) -> Callable[[random.Random], str]:
    """Values of these patterns: # a digit, ? a capital."""

    def make(rng: random.Random) -> str:
        signs = {"#": "0123456789", "?": "ABCDEFGHJKLMNPRSTUVWXYZ"}
        return "".join(rng.choice(signs.get(char, char)) for char in rng.choice(patterns))

    return make


def _email(rng: random.Random) -> str:
    hosts = ("posteo.example", "uni.example.ac", "corp.internal", "mail.example.com")
    plain = f"{rng.choice(PEOPLE).split()[0].lower()}.{rng.randrange(99)}@{rng.choice(hosts)}"
    return rng.choice((plain, plain, plain.upper(), plain.replace("@", " @ "), "kasimir dot ravn at gmail dot com"))


VALUES: dict[str, Callable[[random.Random], str]] = {
    "PERSON": lambda rng: rng.choice(PEOPLE),
    "EMAIL": _email,
    "PHONE": _form(
        "+44 7### ######",
        "0## ### ####",
        "(###) 555-01##",
        "+91##########",
        "06 ## ## ## ##",
        "0###/#######",
        "+372 5### ####",
    ),
    "CARD": _form(
        "4### #### #### ####", "5###-####-####-####", "3### ###### #####", "4###.####.####.####", "6###############"
    ),
    "IBAN": _form(
        "DE## #### #### #### #### ##", "NL##INGB##########", "PL##########################", "GB##NWBK##############"
    ),
    "NATIONAL_ID": _form("###-##-####", "?? ## ## ## ?", "########?", "##########"),
    "ADDRESS": lambda rng: rng.choice(PLACES),
    "DOB": _form("0#/1#/196#", "197#-0#-1#", "1#.0#.198#", "1# May 199#", "March #, 195#"),
    "ORDER_ID": _form("?######", "SO-####-###", "######", "BK-??####", "PO#####"),
    "ACCOUNT_ID": _form("C-#####", "########", "??-######", "#### ####"),
    "SECRET": _form("Fjord##!?#", "sparrow##", "?#?#?##?#?", "blue-kettle-##"),
    "OTP": _form("######", "### ###", "####", "?-######"),
    "IP": _form("1##.2#.3#.4#", "10.#.#.##"),
    "ZIP": _form("?# #??", "#####", "##-###", "#### ??", "??# #??"),
}
