"""Writes tests/crypto/vectors from the literal transcription: python -m tests.crypto.make_vectors

The same files come out every time: seeds are hashes of names, and the encapsulations, the one
thing that the KEM's library does not let us choose, are read back from vectors/encapsulations.json.
"""

import json
from collections.abc import Iterable

from tests.crypto import literal
from tests.crypto import slow_primitives as slow
from tests.crypto.literal import H
from tests.crypto.literal_session import Device
from tests.crypto.vector_conversations import (
    ENCAPSULATIONS,
    MADE_MS,
    RELAY_ID,
    VECTORS,
    Drawer,
    Json,
    Recorder,
    conversation,
    described,
    device_json,
)
from tests.crypto.vector_refusals import entries, first_messages, later_messages, prekeys

SOURCE = "the literal transcription of docs/protocol.md in tests/crypto/literal.py"


def hexed(**values: bytes | int | str) -> Json:
    return {k: v.hex() if isinstance(v, bytes) else v for k, v in values.items()}


def case(step: str, inputs: Json, output: bytes | int | str | Json) -> Json:
    return {
        "step": step,
        "inputs": inputs,
        "output": output.hex() if isinstance(output, bytes) else output,
    }


def layouts() -> Iterable[Json]:
    """One formula each, over inputs of no meaning."""
    draw = Drawer("layouts")
    relay, iks, ikd = draw("relay", 32), draw("iks", 32), bytes([9]) + bytes(31)
    for username, device in (("ada", 1), ("z" * 32, 2**32 - 1), ("a0-_", 2)):
        ID = literal.identity(relay, username, device, iks, ikd)
        fields = hexed(relay_id=relay, username=username, device=device, IKs=iks, IKd=ikd)
        yield case("ID", fields, ID)
        yield case("identity payload", hexed(ID=ID), literal.identity_payload(ID))
    ID_A = literal.identity(relay, "ada", 1, iks, ikd)
    ID_B = literal.identity(relay, "bob", 4, draw("iks of bob", 32), bytes([16]) + bytes(31))
    for kind, size in ((1, 32), (2, 32), (3, 1568), (4, 1568)):
        key, not_after = draw("prekey", size), MADE_MS + kind
        yield case(
            "prekey payload",
            hexed(kind=kind, id=70 + kind, not_after_ms=not_after, ID=ID_A, key=key),
            literal.prekey_payload(kind, 70 + kind, not_after, ID_A, key),
        )
    yield case("AD", hexed(ID_A=ID_A, ID_B=ID_B), literal.associated_data(ID_A, ID_B))
    yield case("AD", hexed(ID_A=ID_B, ID_B=ID_A), literal.associated_data(ID_B, ID_A))
    ek, ct = slow.x25519_public(draw("ek", 32)), draw("ct", 1568)
    for opk_id, kem_kind in ((9, 4), (0, 3)):
        yield case(
            "setup",
            hexed(started_ms=MADE_MS, ID_A=ID_A, EK=ek, spk_id=7, opk_id=opk_id)
            | hexed(kem_kind=kem_kind, kem_id=11, ct=ct),
            literal.setup(MADE_MS, ID_A, ek, 7, opk_id, kem_kind, 11, ct),
        )
    dh, kem_pk, kem_ct = draw("dh", 32), draw("kem_pk", 1184), draw("kem_ct", 1088)
    sid, mk, AD = draw("sid", 16), draw("mk", 32), draw("AD", 32)
    for ciphertext, PN, N in ((kem_ct, 3, 2**32 - 1), (b"", 0, 0)):
        fields = hexed(dh=dh, kem_pk=kem_pk, kem_ct=ciphertext)
        yield case("chain_id", fields, literal.chain_id(dh, kem_pk, ciphertext))
        header = literal.header(sid, PN, N, dh, kem_pk, ciphertext)
        yield case("header", fields | hexed(sid=sid, PN=PN, N=N), header)
        k, com = literal.box_key(mk, AD, header)
        yield case("k ‖ com", hexed(mk=mk, AD=AD, header=header), hexed(k=k, com=com))
    CK = draw("CK", 32)
    for _ in range(3):
        following = literal.next_chain_key(CK)
        yield case("chain", hexed(CK=CK), hexed(mk=literal.message_key(CK), CK=following))
        CK = following
    for L in (1, 3584, 3585, 4096, 4097, 8191, 8192, 8193, 8705, 9000, 65535, 65536, 70000, 262144):
        yield case("padded size", hexed(L=L), literal.padded_size(L))


def relay_statements() -> Iterable[Json]:
    draw = Drawer("relay statements")
    relay, spki, hello, challenge = (draw(x, 32) for x in ("relay", "spki", "hello", "challenge"))
    device = Device.make(relay, "ada", 3, draw)
    login = hexed(relay_id=relay, username="ada", device=3, hello=hello, challenge=challenge)
    login |= hexed(spki=spki)
    signed = literal.login_payload(relay, "ada", 3, hello, challenge, spki)
    yield case("login", login, signed)
    yield case("signature", hexed(seed=device.iks_seed, payload=signed), device.sign(signed))
    register = literal.register_payload(relay, "ada", 3, hello, challenge, spki, b"an entry")
    yield case("register", login | hexed(create_entry=b"an entry"), register)
    yield case(
        "tls", hexed(spki=spki, not_after_ms=MADE_MS), literal.certificate_payload(spki, MADE_MS)
    )
    c = bytes(32)
    for seen, (kind, body) in enumerate([(1, b"hello"), (2, b""), (3, bytes(range(256)))]):
        message_id, time = draw("message id", 16), MADE_MS + seen
        statement = literal.room_statement(kind, message_id, time, seen, c, body)
        payload = literal.room_payload(relay, "#lobby", device.ID, statement)
        fields = hexed(relay_id=relay, room="#lobby", ID=device.ID, kind=kind, body=body)
        fields |= hexed(message_id=message_id, time_ms=time, seen=seen, c_seen=c)
        yield case("room", fields | hexed(statement=statement), payload)
        signature = device.sign(payload)
        following = literal.history_hash(c, "ada", 3, statement, signature)
        fields = hexed(previous=c, username="ada", device=3, statement=statement)
        yield case("history", fields | hexed(signature=signature), following)
        c = following
    for g in (1, 2**63):
        mac = literal.generation_mac(device.iks_seed, g)
        key = literal.generation_key(device.iks_seed)
        yield case("generation", hexed(iks_seed=device.iks_seed, g=g), hexed(key=key, mac=mac))


def key_log() -> Iterable[Json]:
    """One name's life, the leaves' tree after every entry, and trees of odd sizes."""
    draw = Drawer("key log")
    log_seed = draw("log key", 32)
    log_public = slow.ed25519_public(log_seed)
    relay = H(log_public)
    first, second, third = (Device.make(relay, "ada", n, draw) for n in (1, 2, 3))
    prev, leaves = bytes(32), list[bytes]()
    yield case("log key", hexed(seed=log_seed), hexed(public=log_public, relay_id=relay))
    life = ((1, first, 1), (2, second, 1), (3, first, 2), (4, third, 0), (3, third, 0))
    for n, (op, device, signer) in enumerate(life):
        seed = {0: log_seed, 1: first.iks_seed, 2: second.iks_seed}[signer]
        sigID = device.sign(literal.identity_payload(device.ID))
        unsigned = literal.entry_unsigned(op, "ada", n, prev, MADE_MS + n, device.ID, sigID, signer)
        signature = slow.ed25519_sign(seed, unsigned)
        entry = unsigned + signature
        fields = hexed(op=op, username="ada", n=n, prev=prev, time_ms=MADE_MS + n, signer=signer)
        fields |= hexed(ID=device.ID, sigID=sigID, signer_seed=seed)
        leaves.append(literal.leaf("ada", entry))
        yield case(
            "entry",
            fields,
            hexed(unsigned=unsigned, entry=entry, hash=H(entry), leaf=leaves[-1])
            | hexed(root=literal.tree_root(leaves)),
        )
        prev = H(entry)
    for size in (0, 1, 2, 3, 4, 5, 7, 8, 9, 33):
        many = [literal.leaf(f"user{i}", b"entry %d" % i) for i in range(size)]
        yield case("tree", {"leaves": [x.hex() for x in many]}, literal.tree_root(many))


def safety_numbers() -> Iterable[Json]:
    draw = Drawer("safety numbers")
    devices = [Device.make(RELAY_ID, name, 1, draw) for name in ("ada", "bob", "eve")]
    for mine, theirs in ((0, 1), (1, 2), (2, 0)):
        one, other = devices[mine], devices[theirs]
        digits = literal.safety_digits(one.ID, other.ID)
        qr = literal.safety_qr(one.ID, other.ID)
        people = {"mine": described({"ID": one.ID}), "theirs": described({"ID": other.ID})}
        yield case("safety number", people, hexed(digits=digits, qr=qr))


def all_vectors() -> dict[str, Json]:
    recorder = Recorder()
    eve = Device.make(RELAY_ID, "eve", 5, Drawer("devices"))
    vectors: dict[str, Json] = {
        "layouts": {"cases": list(layouts())},
        "relay_statements": {"cases": list(relay_statements())},
        "key_log": {"cases": list(key_log())},
        "safety_numbers": {"cases": list(safety_numbers())},
        "devices": {"device": device_json(eve) | {"device": 5, "relay_id": RELAY_ID.hex()}},
        "conversation_one_time": conversation("one-time prekeys", True, recorder),
        "conversation_last_resort": conversation("last-resort prekeys", False, recorder),
        "refused_first_messages": first_messages(recorder),
        "refused_later_messages": later_messages(recorder),
        "refused_prekeys": prekeys(recorder),
        "refused_entries": entries(),
    }
    vectors = {name: {"source": SOURCE} | vector for name, vector in vectors.items()}
    vectors[ENCAPSULATIONS.stem] = {
        "source": "`cryptography`'s ML-KEM: H(key) to shared secret and ciphertext, drawn once",
        "encapsulations": recorder.used,
    }
    return vectors


def text(vector: Json) -> str:
    return json.dumps(vector, indent=1, ensure_ascii=False) + "\n"


def main() -> None:
    VECTORS.mkdir(exist_ok=True)
    for name, vector in all_vectors().items():
        (VECTORS / f"{name}.json").write_text(text(vector))


if __name__ == "__main__":
    main()
