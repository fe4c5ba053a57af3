"""Samples of the relay become shares of its layers."""

import pytest
from benchmarks.relay_layers import Sample, layer_of, parse, shares

REPORT = """\
# To display the perf.data header info, please use --header/--header-only options.
#
#      Samples;    Pid:Command        ;Shared Object           ;Symbol
 50        ;  12260:saltline-server;libpython3.11.so.1.0                    ;[.] _PyEval_EvalFrame
 20        ;  12260:saltline-server;[kernel.kallsyms]                       ;[k] tcp_sendmsg_locked
 10        ;  12259:saltline-server;libpython3.11.so.1.0                    ;[.] _PyObject_Malloc
 20        ;  12259:saltline-server;__init__.cpython-311-x86_64-linux-gnu.so;[.] sqlite3VdbeExec
"""


def test_a_report_is_read_line_by_line() -> None:
    first, *_, last = parse(REPORT)
    assert first == Sample(12260, "libpython3.11.so.1.0", "[.] _PyEval_EvalFrame", 50)
    assert last == Sample(
        12259, "__init__.cpython-311-x86_64-linux-gnu.so", "[.] sqlite3VdbeExec", 20
    )


def test_python_is_told_apart_by_where_sqlite_runs() -> None:
    assert shares(parse(REPORT)) == {
        "Python: I/O and core": 50.0,
        "TCP, and all else of the kernel": 20.0,
        "SQLite and apsw": 20.0,
        "Python: storage thread": 10.0,
    }


@pytest.mark.parametrize(
    ("file", "symbol", "layer"),
    [
        ("[kernel.kallsyms]", "[k] ext4_sync_file", "disk, in the kernel"),
        ("[kernel.kallsyms]", "[k] skb_release_data", "TCP, and all else of the kernel"),
        ("libcrypto.so.3", "[.] 0x0000000000341bc8", "AES-GCM and OpenSSL around it"),
        ("libcrypto.so.3", "[.] SHA256_Update", "SHA-256, of the history"),
        ("_ssl.cpython-311-x86_64-linux-gnu.so", "[.] _ssl__SSLSocket_write", "AES-GCM and"),
        ("_core.cpython-311-x86_64-linux-gnu.so", "[.] mpack_encode", "msgpack"),
        ("libc.so.6", "[.] __memmove_evex_unaligned_erms", "copying in user space"),
        ("libc.so.6", "[.] malloc", "Python"),
        ("python3.11", "[.] _PyEval_EvalFrameDefault", "Python"),
        ("something else", "[.] main", "unknown"),
    ],
)
def test_a_sample_counts_for_one_layer(file: str, symbol: str, layer: str) -> None:
    assert layer_of(Sample(1, file, symbol, 1)).startswith(layer)
