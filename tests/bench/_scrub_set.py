"""A labelled set of generated turns: wordings of many languages, names and addresses of many countries, disguises."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

PEOPLE = [
    "Vesna Strmole", "Ottilie Brandauer", "Kasimir", "Yrsa Fjeldstad", "Tunde Afolabi", "Bukola", "Ximo Llopis",
    "Jarmila Hrubá", "Anselm Quist", "Maarit Suokas", "Gwilym", "Deirdre Mulvaney", "Rhiannon Pask",
    "Zoltan Peterfi", "Nnenna Udeh", "Farrukh Zaman", "Suchitra Rao", "Bayarmaa", "Keir Dunmore",
    "Sanna-Mari Toivola", "Leocadia Prat", "Abelardo Quiroga", "Thorkild Ravn", "Ewelina Sroka", "Dragomir",
    "Ilse Vandamme", "Ngozi Anyanwu", "Ruaridh", "Hyun-woo Seo", "Thuy Linh", "Makoto Ishibashi", "Perpetua Ssali",
    "Ioana Dragulin", "Wolfram Hettich", "Maëlle Kerbrat", "Oddvar J. Tveit", "Iñaki Zubeldia", "Šárka Novotná",
    "Łucja Wiśniewska", "Þórdís Jónsdóttir", "Gülben Özkök", "Aleksandrs Bērziņš", "Kęstutis Žukas",
    "Mbali Dlamini", "Kwabena Asante", "Chidi", "Priyanka Deshmukh", "Arjan van der Velde", "Giacomo dell'Orto",
    "Teresa O'Driscoll", "Siobhán", "Jean-Baptiste Moreau", "Quetzalli Ixtlilco", "Duarte Pimentel", "Räikkä",
    "Ольга Сидоренко", "Димитър Колев", "Γιώργος Μπέκας", "佐々木 健", "陈晓明", "김하늘", "عبد الله الحربي",
    "רותם לוי",
    "अनिता वर्मा", "ณัฐพล ใจดี",
]  # fmt: skip
"""Names of persons, none of them in the lists that the tagger was built from as a whole."""

PLACES = [
    "58 Thornbury Crescent", "Flat 3, 19 Mill Lane, Otley", "2210 Sycamore Blvd Apt 7, Provo UT 84601",
    "Am Lindenhain 23, 04177 Leipzig", "Gartenweg 8b", "17 rue du Moulin, 35000 Rennes",
    "Calle Alcalá 214, 28028 Madrid", "Via dei Mille 41, 80121 Napoli", "Rua das Flores 12",
    "Prinsengracht 301, 1016 GX Amsterdam", "Storgatan 14, 411 24 Göteborg", "ul. Kwiatowa 5/12",
    "Mannerheimintie 40", "Vesterbrogade 77", "Hlavná 3, 040 01 Košice", "101 Ocean View Drive",
    "Kossuth Lajos utca 9, 6720 Szeged", "Str. Mihai Eminescu nr. 14, Cluj",
    "Av. Insurgentes Sur 1602, 03940 Ciudad de México", "Carrera 7 # 71-21, Bogotá",
    "Rua Augusta 1508, 01304-001 São Paulo", "Atatürk Caddesi No: 12, 35210 İzmir", "Jl. Sudirman No. 44, Bandung",
    "12 Hang Bong, Hoan Kiem, Ha Noi", "Unit 4, 88 Collins Street, Melbourne VIC 3000", "P.O. Box 1187, Nairobi",
    "221 MG Road, Indiranagar, Bengaluru 560038", "H.No. 14, Shastri Nagar, Jaipur-302016",
    "Trg bana Jelačića 5, 10000 Zagreb", "Slovenska cesta 34, 1000 Ljubljana", "Gedimino pr. 20, Vilnius",
    "Brīvības iela 76, Rīga", "Narva mnt 7, 10117 Tallinn", "Karl Johans gate 31, 0159 Oslo",
    "Oude Markt 11 bus 3, 3000 Leuven", "Bahnhofstrasse 4, 8001 Zürich", "4 Privet Close, Whitby YO21 3PQ",
    "ул. Ленина, д. 14, кв. 3", "Ερμού 12, 10563 Αθήνα", "9 St Stephen's Green, Dublin D02 HK30",
]  # fmt: skip
"""Addresses."""

_DIGITS = ("٠١٢٣٤٥٦٧٨٩", "०१२३४५६७८९", "𝟎𝟏𝟐𝟑𝟒𝟓𝟔𝟕𝟖𝟗", "０１２３４５６７８９")
_SPELLED = (
    "zero one two three four five six seven eight nine",
    "null eins zwei drei vier fünf sechs sieben acht neun",
    "cero uno dos tres cuatro cinco seis siete ocho nueve",
    "zéro un deux trois quatre cinq six sept huit neuf",
)
_LOOKALIKES = dict(zip("aeopcxy", "аеорсху", strict=True))


WORDINGS: dict[str, list[str]] = {}
"""Label -> what stands around a value; `?` and a label: questions for it; `/`: around a card's date; `-`: no value."""
for _line in Path(__file__).with_name("scrub_wordings.txt").read_text(encoding="utf-8").splitlines():
    if not _line.startswith("#"):
        WORDINGS.setdefault(_line.split("\t")[0], []).append(_line.split("\t")[1])


class Turn(NamedTuple):
    """A turn, the value in it (start, end, label; None in an ordinary turn), and the question before it."""

    text: str
    value: tuple[int, int, str] | None
    question: str = ""


def turns(seed: int = 5, each: int = 60) -> list[Turn]:
    """The set: so many turns a label, disguised ones and bare answers among them, and every ordinary one."""
    rng = random.Random(seed)
    found = [Turn(text, None) for text in WORDINGS["-"]]
    for label, make in VALUES.items():
        for i in range(each):
            value = make(rng)
            if f"?{label}" in WORDINGS and i % 6 == 0:
                found.append(Turn(value, (0, len(value), label), rng.choice(WORDINGS[f"?{label}"])))
                continue
            wording = rng.choice(WORDINGS[label])
            if label == "CARD_SEC" and i % 3 == 0:
                wording, value = rng.choice(WORDINGS["/"]), f"{rng.randrange(1, 13):02}/{rng.randrange(26, 35)}"
            elif label in {"PERSON", "ADDRESS"} and rng.random() < 0.25:
                wording, value = wording.lower(), value.lower()
            elif label in DISGUISES and rng.random() < 0.2:
                value = rng.choice(DISGUISES[label])(value, rng)
            start = wording.index("{}")
            found.append(Turn(wording.replace("{}", value), (start, start + len(value), label)))
    return found


def _form(*patterns: str) -> Callable[[random.Random], str]:
    """Values of these patterns: # a digit, ? a capital, % a hexadecimal digit."""

    def make(rng: random.Random) -> str:
        signs = {"#": "0123456789", "?": "ABCDEFGHJKLMNPRSTUVWXYZ", "%": "0123456789abcdef"}
        return "".join(rng.choice(signs.get(char, char)) for char in rng.choice(patterns))

    return make


def _email(rng: random.Random) -> str:
    hosts = ("posteo.example", "uni.example.ac", "corp.internal", "mail.example.com", "gmail.com", "web.de")
    user = rng.choice(("kasimir", "yrsa", "keir", "maarit", "tunde", "vesna"))
    return f"{user}.{rng.randrange(99)}@{rng.choice(hosts)}"


def spelled(value: str, rng: random.Random) -> str:
    """Its digits as words."""
    words = rng.choice(_SPELLED).split()
    return rng.choice((" ", ", ", "-")).join(words[int(char)] for char in value if char.isdecimal())


def invisible(value: str, rng: random.Random) -> str:
    """Characters without width in between."""
    return "".join(char + rng.choice(("", "", "\u200b", "\u2060", "\u00ad")) for char in value)


def foreign_digits(value: str, rng: random.Random) -> str:
    """Digits of another script."""
    digits = rng.choice(_DIGITS)
    return "".join(digits[int(char)] if char.isascii() and char.isdecimal() else char for char in value)


def separated(value: str, rng: random.Random) -> str:
    """Its groups an odd sign apart."""
    plain, size = [char for char in value if char.isalnum()], rng.choice((2, 3, 4))
    sign = rng.choice(("|", "~", " - ", ".", "_", "\u00a0", "–", "*", "  "))
    return sign.join("".join(plain[i : i + size]) for i in range(0, len(plain), size))


def obfuscated(value: str, rng: random.Random) -> str:
    """An address as people hide it from robots."""
    user, host = value.split("@")
    return rng.choice(
        (
            f"{user.replace('.', ' dot ')} at {host.replace('.', ' dot ')}", f"{user}(at){host}",
            f"{user} [at] {host.replace('.', ' [dot] ')}",
            f"{user}_at_{host.replace('.', '_dot_')}", f"{user} @ {host}",
        )
    )  # fmt: skip


def lookalike(value: str, rng: random.Random) -> str:
    """Letters of another alphabet that look the same."""
    return "".join(_LOOKALIKES.get(char, char) if rng.random() < 0.5 else char for char in value)


DISGUISES: dict[str, tuple[Callable[[str, random.Random], str], ...]] = {
    "PHONE": (spelled, invisible, foreign_digits, separated),
    "CARD": (spelled, invisible, foreign_digits, separated),
    "EMAIL": (obfuscated, invisible, lookalike),
    "IBAN": (invisible, foreign_digits),
    "NATIONAL_ID": (invisible, foreign_digits),
    "OTP": (spelled, foreign_digits),
    "IP": (invisible,),
}

VALUES: dict[str, Callable[[random.Random], str]] = {
    "PERSON": lambda rng: rng.choice(PEOPLE),
    "EMAIL": _email,
    "PHONE": _form(
        "+44 7### ######", "0## ### ####", "(###) 555-01##", "+91##########", "06 ## ## ## ##", "0###/#######",
        "+372 5### ####", "+55 11 9####-####", "+81 90-####-####",
    ),
    "CARD": _form(
        "4### #### #### ####", "5###-####-####-####", "3### ###### #####", "4###.####.####.####", "6###############"
    ),
    "IBAN": _form(
        "DE## #### #### #### #### ##", "NL##INGB##########", "PL##########################", "GB##NWBK##############",
        "fr## #### #### #### #### #### ###",
    ),
    "NATIONAL_ID": _form("###-##-####", "?? ## ## ## ?", "########?", "##########", "###.###.###-##", "######-####"),
    "ADDRESS": lambda rng: rng.choice(PLACES),
    "DOB": _form("0#/1#/196#", "197#-0#-1#", "1#.0#.198#", "1# May 199#", "March 1#, 195#", "1#-Jun-#9"),
    "ORDER_ID": _form("?######", "SO-####-###", "######", "BK-??####", "PO#####", "?#?#?#", "#####-##"),
    "TRACKING": _form("1Z######??########", "############", "RR#########DE", "JJD00##############"),
    "ACCOUNT_ID": _form("C-#####", "########", "??-######", "#### ####", "POL-??-####"),
    "SECRET": _form(
        "Fjord##!?#", "sparrow##", "?#?#?##?#?", "blue-kettle-##", "sk_live_?#?#?#?#?#?#?#?#?#?#", "%" * 32
    ),
    "OTP": _form("######", "### ###", "####", "?-######"),
    "IP": _form("1##.2#.3#.4#", "10.#.#.##", "2001:db8:%%%%::%%%%"),
    "MAC": _form("a#:%%:%%:%%:%%:%%", "A#-%%-%%-%%-%%-%%"),
    "ZIP": _form("?# #??", "#####", "##-###", "#### ??", "??# #??", "### ##"),
    "USERNAME": _form("quartz_fox##", "night.owl", "the_??##", "DarkLark#", "@reed_##"),
    "CARD_SEC": _form("###", "####"),
    "PASSPORT": _form("?########", "#########", "??#######"),
    "DRIVER_LICENSE": _form("?#######", "?###-####-####", "?????######??#??"),
    "VEHICLE": _form("??## ???", "?-?? ####", "###-???", "?#?????#?########"),
    "DEVICE_ID": _form("35#############", "?##?######", "%%%%%%%%-%%%%-4%%%-8%%%-%%%%%%%%%%%%"),
    "CRYPTO": _form("0x" + "%" * 40, "bc1q" + "%" * 38),
    "GEO": _form("5#.#####, 1#.#####", "-2#.####,4#.####"),
}  # fmt: skip
"""Label -> a value of it."""
