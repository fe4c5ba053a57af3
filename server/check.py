"""`saltline-server check`: what would keep a relay from starting, before it is started."""

from collections.abc import Iterator
from datetime import UTC, datetime

from saltline.crypto.keylog import LogKey
from saltline.server.admin import ask
from saltline.server.administration import ReadStats
from saltline.server.certificates import CERTIFICATE_FILE, KEY_FILE, load, name_warning
from saltline.server.config import Config, known_host
from saltline.server.data_folder import DataFolder
from saltline.server.errors import UsageError
from saltline.server.store.interface import StoreUnusable
from saltline.server.store.sqlite import RESTORE, SqliteStore, require_database_of_log


def check_relay(config: Config, now: datetime) -> Iterator[str]:
    """A line for each thing that is well. Raises UsageError at the first that is not."""
    yield f"Configuration: ok. Listens on {config.listen}, keeps its data in {config.data}."
    folder = _find_folder(config)  # first: who may not look into it learns nothing of the rest
    yield _check_certificate(config, now)
    yield _check_data(config, folder)


def _find_folder(config: Config) -> DataFolder | None:
    try:
        config.data.lstat()
    except FileNotFoundError:
        return None
    except OSError:
        pass  # said by who opens it
    return DataFolder.open(config.data, create=False)


def _check_certificate(config: Config, now: datetime) -> str:
    chain = config.certificate or config.data / CERTIFICATE_FILE
    key = config.key or config.data / KEY_FILE
    if config.certificate is None and not (chain.exists() or key.exists()):
        return "Certificate: none yet. The relay makes its own at its first start."
    certificate = load(chain, key, now)
    ends = datetime.fromtimestamp(certificate.not_after_ms / 1000, UTC)
    warnings = [certificate.warning]
    if config.certificate is not None:
        warnings.append(name_warning(certificate, known_host(config.listen)))
    advice = "".join(f" But: {warning}" for warning in warnings if warning)
    return f"Certificate: ok until {ends:%Y-%m-%d}, {certificate.pin}.{advice}"


def _check_data(config: Config, folder: DataFolder | None) -> str:
    if folder is not None and folder.is_in_use():
        ask(config.data, ReadStats())
        return "Database: in use by a relay that runs and answers. Stop it to check every page."
    if folder is None or not _has_database(folder):
        return "Database: none yet. The relay makes it at its first start."
    folder.lock()
    try:
        relay_id = LogKey.from_seed(folder.log_key_seed(None)).relay_id
        store = SqliteStore(folder.database, relay_id)
        try:
            findings = store.check()
        except Exception:  # SQLite gives up on a page
            findings = ["a page of it cannot be read"]
        finally:
            store.close()
    except StoreUnusable as error:
        raise UsageError(str(error)) from None
    finally:
        folder.close()
    if findings:
        raise UsageError(
            f"The database {folder.database} is damaged: {findings[0]}. {RESTORE} What came"
            " after that backup is lost here, and people keep what they sent."
        )
    return "Database: ok, every page of it."


def _has_database(folder: DataFolder) -> bool:
    try:
        require_database_of_log(folder.database)
    except StoreUnusable as error:
        raise UsageError(str(error)) from None
    return folder.database.exists()
