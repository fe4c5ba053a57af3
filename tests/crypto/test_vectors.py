"""saltline.crypto against the pinned vectors of every labelled step (docs/protocol.md §2–§7).

The vectors come from `make_vectors`, an independent transcription of the specification. Whole
conversations have their own file, test_vector_conversations.py.
"""

from typing import Any

import pytest

from saltline.crypto import (
    bundles,
    chains,
    envelope,
    handshake,
    keylog,
    primitives,
    safety,
    signatures,
)
from saltline.crypto.keys import IdentityKeys
from tests.crypto import literal, make_vectors
from tests.crypto.vector_conversations import VECTORS
from tests.crypto.vector_files import Case, cases, read

unhex = bytes.fromhex


def identity_of(ID: str) -> signatures.Identity:
    return signatures.Identity.decode(unhex(ID))


def test_the_vector_files_are_what_the_transcription_gives() -> None:
    for name, vector in make_vectors.all_vectors().items():
        path = VECTORS / f"{name}.json"
        assert path.read_text() == make_vectors.text(vector), f"{name}: run make_vectors"
        assert vector["source"]


# §2 Keys --------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", cases("layouts", "ID"))
def test_identity(case: Case) -> None:
    identity = signatures.Identity(
        unhex(case["relay_id"]),
        case["username"],
        case["device"],
        unhex(case["IKs"]),
        unhex(case["IKd"]),
    )
    assert identity.encode().hex() == case["output"]
    assert identity_of(case["output"]) == identity
    assert identity.hash == literal.H(unhex(case["output"]))
    assert identity.fingerprint.replace(" ", "") == identity.hash.hex()[:16]


@pytest.mark.parametrize("case", cases("layouts", "identity payload"))
def test_identity_payload(case: Case) -> None:
    assert signatures.identity_payload(identity_of(case["ID"])).hex() == case["output"]


def test_a_devices_keys_and_signature() -> None:
    device = read("devices")["device"]
    draws = [unhex(device["iks_seed"]), unhex(device["ikd_secret"])]
    keys = IdentityKeys.generate(
        unhex(device["relay_id"]), device["username"], device["device"], lambda size: draws.pop(0)
    )
    assert keys.identity.encode().hex() == device["ID"]
    assert keys.identity.hash.hex() == device["H(ID)"]
    assert keys.identity_signature.hex() == device["sigID"]
    assert IdentityKeys.from_bytes(keys.to_bytes()) == keys


@pytest.mark.parametrize("case", cases("layouts", "prekey payload"))
def test_prekey_payload(case: Case) -> None:
    kind = bundles.PrekeyKind(case["kind"])
    prekey = bundles.Prekey(kind, case["id"], case["not_after_ms"], unhex(case["key"]), bytes(64))
    assert prekey.payload(identity_of(case["ID"]).hash).hex() == case["output"]
    assert bundles.Prekey.decode(prekey.encode()) == prekey


def prekey_of(fields: dict[str, Any]) -> bundles.Prekey:
    return bundles.Prekey(
        bundles.PrekeyKind(fields["kind"]),
        fields["id"],
        fields["not_after_ms"],
        unhex(fields["key"]),
        unhex(fields["signature"]),
    )


@pytest.mark.parametrize("fields", read("conversation_one_time")["bob_prekeys"], ids=str)
def test_good_prekeys_verify(fields: dict[str, Any]) -> None:
    conversation = read("conversation_one_time")
    prekey = prekey_of(fields)
    prekey.verify(identity_of(conversation["bob"]["ID"]), conversation["started_ms"])


@pytest.mark.parametrize(
    "fields", read("refused_prekeys")["cases"], ids=lambda fields: fields["name"]
)
def test_bad_prekeys_are_refused(fields: dict[str, Any]) -> None:
    vector = read("refused_prekeys")
    assert fields["expected"] == "BadBundle"
    with pytest.raises(bundles.BadBundle):
        prekey_of(fields).verify(identity_of(vector["identity"]), vector["now_ms"])


# §3, §4 Set-up and ratchet: their formulas; test_vector_conversations holds them together -------


@pytest.mark.parametrize("case", cases("layouts", "AD"))
def test_associated_data(case: Case) -> None:
    AD = handshake.associated_data(identity_of(case["ID_A"]), identity_of(case["ID_B"]))
    assert AD.hex() == case["output"]


@pytest.mark.parametrize("case", cases("layouts", "setup"))
def test_setup(case: Case) -> None:
    setup = handshake.Setup(
        case["started_ms"],
        identity_of(case["ID_A"]),
        unhex(case["EK"]),
        case["spk_id"],
        case["opk_id"],
        bundles.PrekeyKind(case["kem_kind"]),
        case["kem_id"],
        unhex(case["ct"]),
    )
    assert setup.encode().hex() == case["output"]
    assert handshake.Setup.decode(unhex(case["output"])) == setup


@pytest.mark.parametrize("case", cases("layouts", "chain_id"))
def test_chain_id(case: Case) -> None:
    fields = chains.chain_fields(*(unhex(case[x]) for x in ("dh", "kem_pk", "kem_ct")))
    assert chains.chain_id(fields).hex() == case["output"]


@pytest.mark.parametrize("case", cases("layouts", "header"))
def test_header(case: Case) -> None:
    dh, kem_pk, kem_ct = (unhex(case[x]) for x in ("dh", "kem_pk", "kem_ct"))
    header = chains.Header.decode(unhex(case["output"]))
    assert header == chains.Header(
        unhex(case["sid"]),
        case["PN"],
        case["N"],
        dh,
        kem_pk,
        kem_ct,
        literal.chain_id(dh, kem_pk, kem_ct),
    )
    fields = chains.chain_fields(dh, kem_pk, kem_ct)
    chain = chains.SendingChain(chains.SendingChainKey(bytes(32)), case["N"], case["PN"], fields)
    assert chain.step(unhex(case["sid"]))[2].hex() == case["output"]


@pytest.mark.parametrize("case", cases("layouts", "chain"))
def test_chain_step(case: Case) -> None:
    CK, mk, following = (unhex(x) for x in (case["CK"], *case["output"].values()))
    sending = chains.SendingChain(chains.SendingChainKey(CK), 0, 0, b"")
    sent, key, _ = sending.step(bytes(16))
    assert (sent.key, key) == (following, mk)
    receiving = chains.ReceivingChain(bytes(32), chains.ReceivingChainKey(CK), 0)
    received = chains.ReceivingChain(bytes(32), chains.ReceivingChainKey(following), 1)
    assert receiving.step() == (received, mk)
    assert receiving.skip_to(1) == (received, [mk])


@pytest.mark.parametrize("case", cases("layouts", "k ‖ com"))
def test_box_key_and_commitment(case: Case) -> None:
    mk = chains.MessageKey(unhex(case["mk"]))
    k, com = envelope.box_keys(mk, unhex(case["AD"]), unhex(case["header"]))
    assert {"k": k.hex(), "com": com.hex()} == case["output"]


@pytest.mark.parametrize("case", cases("layouts", "padded size"))
def test_padded_size(case: Case) -> None:
    assert envelope.padded_size(case["L"]) == case["output"]


def test_padded_size_everywhere() -> None:
    for size in [*range(1, 20_000), *range(20_000, 262_144, 997)]:
        assert envelope.padded_size(size) == literal.padded_size(size)


# §5, §6 The relay, rooms, generations ---------------------------------------------------------


@pytest.mark.parametrize("case", cases("relay_statements", "login"))
def test_login(case: Case) -> None:
    payload = signatures.login_payload(*statement_fields(case))
    assert payload.hex() == case["output"]


@pytest.mark.parametrize("case", cases("relay_statements", "register"))
def test_register(case: Case) -> None:
    entry_hash = literal.H(unhex(case["create_entry"]))
    payload = signatures.register_payload(*statement_fields(case), entry_hash)
    assert payload.hex() == case["output"]


def statement_fields(case: Case) -> tuple[bytes, str, int, bytes, bytes, bytes]:
    talk = unhex(case["hello"]), unhex(case["challenge"]), unhex(case["spki"])
    return (unhex(case["relay_id"]), case["username"], case["device"], *talk)


@pytest.mark.parametrize("case", cases("relay_statements", "signature"))
def test_statement_signature(case: Case) -> None:
    seed, payload, signature = unhex(case["seed"]), unhex(case["payload"]), unhex(case["output"])
    assert primitives.ed25519_sign(seed, payload) == signature
    signatures.verify(primitives.ed25519_from_seed(seed), payload, signature)
    with pytest.raises(primitives.BadSignature):
        signatures.verify(primitives.ed25519_from_seed(seed), payload + b"\x00", signature)


@pytest.mark.parametrize("case", cases("relay_statements", "tls"))
def test_certificate(case: Case) -> None:
    payload = signatures.certificate_payload(unhex(case["spki"]), case["not_after_ms"])
    assert payload.hex() == case["output"]


@pytest.mark.parametrize("case", cases("relay_statements", "room"))
def test_room_statement(case: Case) -> None:
    statement = signatures.RoomStatement(
        case["kind"],
        unhex(case["message_id"]),
        case["time_ms"],
        case["seen"],
        unhex(case["c_seen"]),
        unhex(case["body"]),
    )
    assert statement.encode().hex() == case["statement"]
    assert signatures.RoomStatement.decode(unhex(case["statement"]), 256) == statement
    relay_id, author = unhex(case["relay_id"]), literal.H(unhex(case["ID"]))
    payload = signatures.room_payload(relay_id, case["room"], author, statement.encode())
    assert payload.hex() == case["output"]


@pytest.mark.parametrize("case", cases("relay_statements", "history"))
def test_room_history(case: Case) -> None:
    following = signatures.next_history_hash(
        unhex(case["previous"]),
        case["username"],
        case["device"],
        unhex(case["statement"]),
        unhex(case["signature"]),
    )
    assert following.hex() == case["output"]


def test_room_history_starts_at_zeros() -> None:
    first = cases("relay_statements", "history")[0]
    assert signatures.EMPTY_HISTORY.hex() == first["previous"] == "00" * 32


@pytest.mark.parametrize("case", cases("relay_statements", "generation"))
def test_generation(case: Case) -> None:
    draws = [unhex(case["iks_seed"]), unhex(read("devices")["device"]["ikd_secret"])]
    keys = IdentityKeys.generate(bytes(32), "ada", 1, lambda size: draws.pop(0))
    key = keys.generation_key()
    assert key.hex() == case["output"]["key"]
    mac = primitives.hmac_sha256(key, case["g"].to_bytes(8, "big"))
    assert mac.hex() == case["output"]["mac"]


# §7 The key log -------------------------------------------------------------------------------


def entry_of(case: Case) -> keylog.Entry:
    return keylog.Entry(
        keylog.Op(case["op"]),
        case["username"],
        case["n"],
        unhex(case["prev"]),
        case["time_ms"],
        identity_of(case["ID"]),
        unhex(case["sigID"]),
        case["signer"],
        unhex(case["output"]["entry"])[-64:],
    )


@pytest.mark.parametrize("case", cases("key_log", "entry"))
def test_entry(case: Case) -> None:
    entry, output = entry_of(case), case["output"]
    assert entry.unsigned().hex() == output["unsigned"]
    assert entry.encode().hex() == output["entry"]
    assert entry.hash.hex() == output["hash"]
    assert keylog.leaf(entry).hex() == output["leaf"]
    assert keylog.Entry.decode(unhex(output["entry"])) == entry
    assert primitives.ed25519_sign(unhex(case["signer_seed"]), entry.unsigned()) == entry.signature


def test_a_names_life_is_replayed() -> None:
    key = cases("key_log", "log key")[0]
    log_key = keylog.LogKey.from_seed(unhex(key["seed"]))
    assert log_key.public.hex() == key["output"]["public"]
    assert log_key.relay_id.hex() == key["output"]["relay_id"]
    life = cases("key_log", "entry")
    entries = [unhex(case["output"]["entry"]) for case in life]
    live = [
        [each.device for each in keylog.replay(entries[:n], log_key.public).live]
        for n in range(1, 6)
    ]
    assert live == [[1], [1, 2], [2], [3], []]  # create, add, revoke 1, reset to 3, revoke 3
    account = keylog.replay(entries, log_key.public)
    assert account.closed and account.root == identity_of(life[3]["ID"])
    hasher = keylog.TreeHasher()
    for case in life:
        hasher.append(unhex(case["output"]["leaf"]))
        assert hasher.root().hex() == case["output"]["root"]


@pytest.mark.parametrize("name", read("refused_entries")["valid"])
def test_the_histories_that_the_refused_entries_follow_are_good(name: str) -> None:
    vector = read("refused_entries")
    entries = [unhex(entry) for entry in vector["valid"][name]]
    account = keylog.replay(entries, unhex(vector["log_public"]))
    assert account.next_number == len(entries)


@pytest.mark.parametrize("case", read("refused_entries")["cases"], ids=lambda case: case["name"])
def test_bad_entries_are_refused(case: dict[str, Any]) -> None:
    log_public = unhex(read("refused_entries")["log_public"])
    *before, bad = (keylog.Entry.decode(unhex(entry)) for entry in case["entries"])
    assert case["expected"] == "BadEntry"
    with pytest.raises(keylog.BadEntry):
        keylog.replay([entry.encode() for entry in [*before, bad]], log_public)
    if before:
        keylog.replay([entry.encode() for entry in before], log_public)


@pytest.mark.parametrize("case", cases("key_log", "tree"))
def test_tree_root(case: Case) -> None:
    assert keylog.tree_root([unhex(leaf) for leaf in case["leaves"]]).hex() == case["output"]


@pytest.mark.parametrize("case", cases("safety_numbers", "safety number"))
def test_safety_number(case: Case) -> None:
    mine, theirs = identity_of(case["mine"]["ID"]), identity_of(case["theirs"]["ID"])
    for pair in ((mine, theirs), (theirs, mine)):
        digits = safety.safety_number(*pair)
        assert digits.replace(" ", "") == case["output"]["digits"]
        assert [len(group) for group in digits.split()] == [5] * 12
        assert safety.safety_qr(*pair).hex() == case["output"]["qr"]
    assert safety.same_number(case["output"]["digits"], safety.safety_number(mine, theirs))
