"""The site's certificate while its executor runs: a renewed one is taken up, and one that ends soon is told of."""

import logging
from datetime import datetime, timedelta

from bract.checks import certificate_file, guarded
from bract.errors import BractError
from bract.files import read_private
from bract.identity import check_pair, load_certificate
from bract_client.home import SiteHome
from bract_client.hub import HubClient

log = logging.getLogger("bract.renewal")

_WARN_EVERY = timedelta(hours=12)
REMEDY = "`bract-site enrol-request`, have it approved, then `bract-site enrol BUNDLE`."


class Renewal:
    """Looks at the certificate's file whenever it is asked to."""

    def __init__(self, home: SiteHome, hub: HubClient) -> None:
        self._home, self._hub = home, hub
        self._seen = self._stamp()
        self._warned: datetime | None = None

    def look(self, at: datetime) -> None:
        """Take up another certificate, if there is one and it is good; warn of one that ends soon, twice a day."""
        if (seen := self._stamp()) != self._seen:
            self._seen = seen
            self._take(at)
        if self._warned is None or at - self._warned >= _WARN_EVERY:
            self._warned = at
            file = self._home.certificate_file
            check = guarded("certificate", lambda: certificate_file("certificate", file, at, REMEDY))
            if not check.ok:
                log.warning("this site's certificate: %s; %s", check.detail, check.remedy)

    def _take(self, at: datetime) -> None:
        try:
            key, certificate = read_private(self._home.tls_key_file), self._home.certificate_file.read_bytes()
            check_pair(key, certificate, load_certificate(self._home.authority_file.read_bytes()), at)
        except (BractError, OSError) as error:
            log.warning("the renewed certificate is not taken: %s", error)
            return
        self._hub.renew(key, certificate)
        log.info("took up a renewed certificate")

    def _stamp(self) -> int:
        path = self._home.certificate_file
        return path.stat().st_mtime_ns if path.exists() else 0
