"""The words that announce a value, in many languages: key word -> label and grammar of what stands behind it.

Words are as detection texts have them: lower case, without accents, other scripts transliterated.
"""

from __future__ import annotations

from typing import NamedTuple


class Key(NamedTuple):
    """What a key word announces: the label, and the grammar of its value."""

    label: str
    kind: str


_WORDS = {
    Key("ORDER_ID", "id"): (
        "ord bil bill factuur zakaza zakazu zakaz bron bilet zamovlenna paraggelia paraggelias porucka ordrenummer "
        "ordernummer bestillingsnummer tilausnumero tilaus objednavka objednavky rendeles rendelesi comanda "
        "comenzii siparis pesanan narudzba narocilo uzsakymas pasutijums tellimus boeking reservering "
        "reserveringsnummer rezervacja rezervace foglalas rezervare rezervasyon dossier sinistre expediente "
        "siniestro pratica vorgang vorgangsnummer schadennummer aktenzeichen schaden orden reclamo claimnumber "
        "bookingref docket sr incident complaint voucher order orders booking reservation confirmation claim case "
        "invoice ticket reference ref purchase pnr receipt rma return bestellung bestellnummer auftragsnummer "
        "rechnung rechnungsnummer buchung commande facture pedido factura reserva ordine fattura prenotazione po "
        "encomenda bestelling zamowienie quote transaction txn request"
    ),
    Key("ACCOUNT_ID", "id"): (
        "frequent klienta dogovor dogovora polis abonent abonenta logariasmos kundnummer kundenr kundenkonto "
        "kontonr konta klient asiakasnumero asiakas zakaznik zakaznicke ugyfelszam ugyfel musteri pelanggan hesap "
        "rekening rekeningnummer contrat contrato contratto contractnummer umowa smlouva polisnummer "
        "versicherungsnummer versicherung mitgliedsnummer mitglied adherent abonnement socio tessera aderente "
        "lidnummer medlem medlemsnummer bonuskarte iban acnt accno bankkonto blz sortcode account acct acc ac accnt "
        "policy member membership customer client konto kontonummer kundennummer kundennr kunde cuenta compte conto "
        "conta cliente police poliza routing rewards loyalty subscriber contract vertragsnummer klantnummer "
        "employee meter mandate"
    ),
    Key("NATIONAL_ID", "id"): (
        "steueridentifikationsnummer sozialversicherungsnummer sozialversicherung svnr rvnr "
        "rentenversicherungsnummer personalausweisnummer cin cnie nss siren siret cui cnp pps ppsn emirates nric "
        "fin mykad ktp nik cccd cmnd resident bvn nin voter emiraten burgerservicenummer rijksregisternummer niss "
        "fodselsnummer henkilotunnus hetu isikukood asmens-kodas egn emso oib jmbg rodne tckn kimlik tc inn snils "
        "afm amka rsa tfn medicare ird hkid nid identificacion identidad identite identiteit ssn social nino ni nhs "
        "aadhaar aadhar pan tin itin tax dni nie nif cpf cnpj bsn pesel steuernummer steuer-id sin national curp "
        "rfc rut cedula ausweisnummer personalausweis ausweis identity insee secu codice fiscale personnummer cpr "
        "insurance ahv"
    ),
    Key("PASSPORT", "id"): (
        "pasport pasporta diabatirio paszport pas reisedokument passnummer passinumero utlevel pasaport pasaporta "
        "paspor passport reisepass reisepassnummer pasaporte passeport passaporto paspoort"
    ),
    Key("DRIVER_LICENSE", "id"): (
        "prava rijbewijsnummer korkort korkortsnummer forerkort korekort ajokortti ehliyet prawo-jazdy jogositvany "
        "licencia carnet conducir cnh dlno license licence driver's drivers fuhrerschein fuhrerscheinnummer dl "
        "permis patente rijbewijs"
    ),
    Key("TRACKING", "id"): (
        "posilka otpravlenia pakke pakkenr kolli kollinummer przesylka zasilka csomag csomagszam colet resi guia "
        "rastreio rastreo envio spedizione zending zendingsnummer pakketnummer lahetystunnus seuranta fedex ups dhl "
        "usps gls dpd hermes tracking parcel shipment consignment package sendungsnummer sendung paketnummer suivi "
        "colis seguimiento awb waybill track"
    ),
    Key("VEHICLE", "id"): (
        "targa nummerplaat nummernschild registreringsnummer rekisterinumero spz rendszam plaka tablica rejestracja "
        "numberplates licenceplate plate vin plates kennzeichen registration immatriculation matricula reg vrn "
        "numberplate"
    ),
    Key("DEVICE_ID", "id"): ("imei serial udid uuid meid deviceid device s/n seriennummer"),
    Key("CARD", "id"): (
        "card visa mastercard amex maestro discover debit credit cc karte kreditkarte kreditkartennummer carte "
        "tarjeta carta cartao ending"
    ),
    Key("PHONE", "id"): (
        "telefona telefonnr telefoonnummer mobiel mobieltje gsm puhelin puhelinnumero telefonszam telefonu komorka "
        "komorkowy mobilni handphone hp nohp ponsel tilefono kinito rappeler joindre joignable bellen mobilnr "
        "landline viber callback phone mobile cell tel telephone telefon telefono telefonnummer handy handynummer "
        "rufnummer mobil mobilnummer portable movil celular cellulare fax whatsapp contact call ring dial reach sms "
        "extension ext telefoon"
    ),
    Key("IBAN", "id"): ("iban bic swift"),
    Key("ZIP", "id"): (
        "pocztowy postal postnr postinumero psc iranyitoszam kodu kodepos postcode-nr indeks tk pin-code eircode "
        "zipc cp zip zipcode postcode plz postleitzahl cap cep pincode postnummer"
    ),
    Key("CRYPTO", "id"): ("wallet btc bitcoin eth ethereum"),
    Key("CARD_SEC", "code"): (
        "back digits digit cid sicherheitscode prufziffer prufnummer kartenprufnummer cryptogramme seguridad sicurezza "
        "seguranca sec rueckseite cvv cvc cvv2 csc cvn security"
    ),
    Key("CARD_SEC", "expiry"): (
        "ablaufdatum vence vencimiento caducidad caduca expira expiration expire scadenza scade validade validite "
        "vervaldatum geldig wazna wazne platnost gyldig giltig voimassa lejarat expy expdate thru exp expiry "
        "expires expiring gultig valid"
    ),
    Key("OTP", "code"): (
        "kod kodu koda kodi bestatigungscode sicherheitskode verifizierungscode smscode sms-kode verificatiecode "
        "verificare verificacion verificacao dogrulama potvrzovaci kood codul kode-otp code codes otp verification "
        "passcode 2fa pin tan mtan codigo codice kode sms-code one-time authentication authenticator"
    ),
    Key("DOB", "date"): (
        "ur tarihi world bday b-day birthd8 rojdenia rodilsa rodilas narodjenna narodivsa narodilasa gennithika "
        "gennisis gennimenos rajdane naci nacio nasci nasceu nasc geboortedag urodzony urodzona urodzilem urodzilam "
        "fodd fodelsedatum fodt fodselsdato fodselsdag syntynyt syntymaaika syntymapaiva narozen narozena narozeni "
        "narodeny narodena szuletett szulettem szuletesi nascut nascuta nasterii dogum lahir rodjen roden rojen "
        "gimimo gimes dzimis dzimusi sundinud ditelindja born nee birth brith birht bitrh ibrth bith dob birthday "
        "birthdate geboren geburtsdatum geburtstag naissance nacimiento nascita nascido nascimento geboortedatum "
        "d.o.b geb ne nato nata nacido nacida urodzenia"
    ),
    Key("USERNAME", "login"): (
        "log logged sign screen loginname log-in account-name psn snapchat tiktok wechat utilizador utilisatrice "
        "pseudo identifiant kullanici uzytkownika uzytkownik anvandarnamn brukernavn brugernavn kayttajatunnus "
        "felhasznalonev uzivatelske utilizator pengguna korisnicko korisnik login-id logon signon nick nik "
        "pseudonym xbox gamerid ign gebruikersnaam username user login userid user-id user-name benutzername "
        "nutzername usuario utilisateur skype twitter instagram insta telegram handle discord nickname gamertag "
        "screenname"
    ),
}

KEYS: dict[str, list[Key]] = {}
for _key, _words in _WORDS.items():
    for _word in _words.split():
        KEYS.setdefault(_word, []).append(_key)

LOGINS = frozenset(word for word, keys in KEYS.items() if any(key.kind == "login" for key in keys))
"""Key words whose values need no digit."""
CODED = frozenset(word for word, keys in KEYS.items() if keys[0].label in {"ORDER_ID", "ACCOUNT_ID"})
"""Key words whose values may be letters alone: six of an airline's booking."""
NEEDED = {
    "log": " as",
    "logged": " as",
    "sign": " as",
    "screen": "name",
    "bill": " n",
}
"""Key words that announce nothing unless another word follows ("log in as", "screen name")."""
