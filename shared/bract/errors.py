"""What went wrong, why, and what to do: every refusal of bract is a `BractError` with a stable code.

`deploy/codes.md` lists every code; a test keeps that page and this table equal.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Code:
    """A refusal's stable name, its usual cause and the remedy shown to whoever meets it."""

    name: str
    cause: str
    remedy: str


CODES: dict[str, Code] = {}


def _code(name: str, cause: str, remedy: str) -> str:
    CODES[name] = Code(name, cause, remedy)
    return name


# values and signatures
MALFORMED = _code(
    "malformed", "A value does not have the form its type demands.", "Correct the named field; nothing was changed."
)
UNTRUSTED = _code(
    "untrusted",
    "A signature, digest or key is not one we trust.",
    "Ask the sender to sign again, or check the pinned fingerprint.",
)
DIGEST_MISMATCH = _code(
    "digest-mismatch",
    "The bytes do not have the digest they were announced with.",
    "Send them again; if it repeats, suspect tampering.",
)
# keys, certificates, enrolment
KEY_PERMISSIONS = _code("key-permissions", "A private file can be read by others.", "chmod 600 the named file.")
NOT_INITIALISED = _code(
    "not-initialised",
    "The folder is not a bract hub or site.",
    "Run `bract init DIR` or `bract-site init DIR`, or name the right one.",
)
ALREADY_EXISTS = _code(
    "already-exists",
    "Something of that name is already there.",
    "Choose another name or folder; nothing was overwritten.",
)
NOT_ENROLLED = _code(
    "not-enrolled",
    "The site has not installed an enrolment bundle.",
    "`bract-site enrol-request`, have it approved, then `bract-site enrol BUNDLE`.",
)
FINGERPRINT = _code(
    "fingerprint",
    "The hub's fingerprint is not the one that was confirmed.",
    "Compare it with the operator over another channel; do not enrol before they agree.",
)
CERTIFICATE = _code(
    "certificate", "A certificate is expired, foreign or of another site.", "Renew it: enrol again with the hub."
)
UNKNOWN_SITE = _code(
    "unknown-site",
    "The site is not registered at this hub, or was revoked.",
    "Have the operator approve its enrolment request.",
)
OPERATOR_TOKEN = _code(
    "operator-token", "The operator token is missing or wrong.", "Use the token file that `bract init` wrote."
)
# plans and policy
UNKNOWN_OBJECTIVE = _code(
    "unknown-objective",
    "The plan names an objective this version does not have.",
    "Choose one that `bract objectives` lists.",
)
UNKNOWN_ENCODER = _code(
    "unknown-encoder",
    "The plan names an encoder this version does not have.",
    "Choose one that `bract objectives` lists.",
)
NO_CERTIFICATE = _code(
    "no-certificate",
    "The objective has no proof of its privacy bound.",
    "Choose an objective with a certificate; without one there is no DP guarantee.",
)
POLICY = _code(
    "policy",
    "The plan asks for more than this site's policy allows.",
    "Tighten the plan, or have the steward change the site's policy.",
)
FOREIGN_CODE = _code(
    "foreign-code",
    "The bundle carries code; sites run only what they installed.",
    "Launch campaigns with `bract campaign run`.",
)
# consent, retention, data
NO_ADMITTED = _code(
    "too-few-subjects",
    "Fewer subjects are admitted than the site's policy asks for.",
    "Collect consent, or wait; the floor protects small groups.",
)
UNKNOWN_DATASET = _code(
    "unknown-dataset", "The site has no data set of that name.", "`bract-site data add`, or correct the name."
)
UNKNOWN_SUBJECT = _code(
    "unknown-subject",
    "The site knows no subject with that identifier.",
    "Check the identifier; it is matched by keyed digest only.",
)
BAD_RECORD = _code(
    "bad-record", "A record cannot be read or does not fit the schema.", "Mend the named line; the others were taken."
)
NOT_INSTALLED = _code(
    "not-installed",
    "A part that this command needs is an extra, and is not installed.",
    "Install it as named, beside bract: `pip install 'bract[NAME]'`.",
)
NO_ENCODER = _code(
    "no-encoder",
    "No encoder of this version reads records of this kind.",
    "The data set is registered, with its consent and retention; it can train when an encoder for it comes.",
)
NO_CLEARANCE = _code(
    "no-clearance",
    "There is no live consent clearance for this site and round.",
    "See the site's own log for the reason it did not clear.",
)
STALE_CLEARANCE = _code(
    "stale-clearance",
    "The clearance has expired or its snapshot has changed.",
    "The site clears again by itself in the next round.",
)
SAME_PERSON = _code(
    "same-person",
    "One person stands on both sides of a step that needs two.",
    "Have another named person approve it.",
)
NOT_DELETED = _code(
    "not-deleted",
    "Something whose time is over could not be deleted, or was found again afterwards.",
    "`retention due` names it and counts the attempts; mend permissions or disk: it is tried again every day.",
)
OFF_PURPOSE = _code(
    "off-purpose",
    "Something that this would be made from may not be used for its purpose.",
    "Have the data set's terms declare the use if its notice named it, or a data protection officer sign an override.",
)
# budget
BUDGET = _code(
    "budget-exhausted",
    "The round would take the site's privacy budget over its cap.",
    "End the campaign, or have the steward raise the cap knowingly.",
)
NO_RESERVATION = _code(
    "no-reservation",
    "There is no privacy reservation for this site and round.",
    "See the site's own log; nothing may be read without one.",
)
OVERSPEND = _code(
    "overspend",
    "The contribution spent more privacy than was reserved.",
    "The site's software and the plan differ; update it.",
)
DONE_BEFORE = _code(
    "done-before",
    "This site already trained this round of this campaign.",
    "Nothing to do: a round is never trained twice.",
)
CANARY = _code(
    "canary",
    "The private step disagrees with an explicit per-subject computation.",
    "Do not use this build; nothing was released.",
)
# updates
BAD_ARRAYS = _code(
    "bad-arrays",
    "An update's names, shapes, dtypes or values are not the plan's.",
    "The site's software and the plan differ; update it.",
)
NOT_FINITE = _code(
    "not-finite", "An update holds NaN or infinite values.", "Lower the site's learning rate; the update was not used."
)
TOO_LARGE = _code(
    "too-large", "A message, array or norm is over its limit.", "Check the plan's limits; nothing was kept."
)
SUSPECTED = _code(
    "suspected",
    "On public records the site's encoder stands apart from the others'; its update was left out.",
    "`bract campaign show` tells the score; ask the site what differs. It takes part in the next round.",
)
REPLAY = _code("replay", "The same contribution was sent before.", "Nothing to do; it counts once.")
LATE = _code(
    "deadline",
    "The site did not answer before the round closed.",
    "It takes part in the next round; look at its log if this repeats.",
)
STOPPED = _code(
    "stopped",
    "The campaign was stopped, or failed, before the round was closed.",
    "Nothing was used; `bract campaign run` lets the campaign go on with a new round.",
)
SITE_FAILED = _code(
    "site-failed",
    "The site met an error it may not describe to the hub.",
    "The steward finds it in the site's own log.",
)
HUB_FAILED = _code(
    "hub-failed",
    "The hub met an error it may not describe to a site.",
    "The operator finds it in the hub's own log.",
)
# secure aggregation
PEER_KEY = _code(
    "peer-key",
    "A site's key in the round's plan is not the one that is known for it.",
    "Ask that site; if its key was renewed, take its line out of `secure/peers.json`.",
)
SECOND_ANSWER = _code(
    "second-answer",
    "The hub asked twice for the same stage of a secure round, with something else the second time.",
    "Nothing was revealed; if it repeats, ask the operator why.",
)
BAD_SHARE = _code(
    "bad-share",
    "A share or box of a secure round is not what its dealer gave out.",
    "Nothing was opened; the hub's log names the site.",
)
BAD_SUM = _code(
    "bad-sum",
    "The masks did not cancel, or the opened sum is larger than the sites' clipped updates can be.",
    "The round was not used; a site's software differs, or it cheats.",
)
# running
UNREACHABLE = _code(
    "unreachable",
    "The other side does not answer.",
    "Check the address, the network and that it is running (`doctor`).",
)
NOT_RUNNING = _code("not-running", "The hub is not running.", "Start it with `bract hub DIR`.")
DISK = _code("disk", "The disk is full or cannot be written.", "Free space; nothing half-written was kept.")
QUORUM = _code(
    "no-quorum",
    "Too few sites took part for the round to count.",
    "See each site's reason; the round can be run again.",
)
SUPERSEDED = _code(
    "superseded",
    "Another run of the campaign has taken over.",
    "Nothing to do: the newest run goes on, and what this one still says is not heard.",
)
CRASH_LOOP = _code(
    "crash-loop",
    "The campaign's process ended again and again without closing a round.",
    "Find the reason in the hub's `logs/serverapp.log`; `bract campaign run NAME` then takes the campaign up again.",
)
QUARANTINED = _code(
    "quarantined",
    "The site sent again and again what had to be refused, and takes part in nothing.",
    "Find out why at the site; a named person then lifts it with `bract enrol quarantine lift`.",
)
UNKNOWN_CAMPAIGN = _code("unknown-campaign", "There is no campaign of that name.", "`bract campaign list` shows them.")
STATE = _code("wrong-state", "The step is not possible in the present state.", "`bract campaign show` tells the state.")
LOG = _code(
    "log-inconsistent",
    "The log does not verify.",
    "Keep the folder as it is and call the auditor; the named entry is the first bad one.",
)
LOG_FORKED = _code(
    "log-forked",
    "A log was shown that does not continue the one that was seen before: it was cut back, rewritten or split.",
    "Keep both folders as they are and find out why; a named person lifts it with `log accept-fork`, hub before site.",
)
CONCURRENT = _code("concurrent", "Another process holds what this one needs.", "End the other one, or wait for it.")
TOO_OFTEN = _code(
    "too-often",
    "The site calls more often than the hub's limits allow.",
    "It waits and goes on by itself; `[limits]` in the hub's settings.toml if this repeats.",
)
CLOCK = _code(
    "clock-skew",
    "The clocks of hub and site are further apart than minutes.",
    "Let both machines follow a time server; `bract-site doctor` tells how far they are apart.",
)
# access
FORBIDDEN = _code(
    "forbidden",
    "The role may not ask or do this.",
    "Ask somebody whose role may; `bract audit token list` shows who has which.",
)
TOKEN = _code(
    "access-token",
    "The access token is missing, unknown, expired or revoked.",
    "Have the hub's owner give out another: `bract audit token issue`.",
)


# releases
GATE = _code(
    "release-gate",
    "The release does not meet every criterion of the gate.",
    "`bract release gate NAME` lists each with what is in its way.",
)


class BractError(Exception):
    """A refusal with a code, a cause and a remedy.

    Attributes:
        code: one of `CODES`.
        detail: what exactly, in this case. Never names a person, a path of data or a value read from data.
    """

    def __init__(self, code: str, detail: str = "") -> None:
        self.code = code
        self.detail = detail
        super().__init__(f"[{code}] {detail or CODES[code].cause}")

    @property
    def cause(self) -> str:
        """Why this usually happens."""
        return CODES[self.code].cause

    @property
    def remedy(self) -> str:
        """What to do about it."""
        return CODES[self.code].remedy


def page() -> str:
    """`deploy/codes.md`: every code with its cause and remedy, as Markdown. `python -m bract.errors` prints it."""
    head = "# Codes\n\nEvery refusal of bract carries one of these codes. Made from `bract.errors`; a test keeps both equal.\n"
    rows = [f"| `{code.name}` | {code.cause} | {code.remedy} |" for code in CODES.values()]
    return "\n".join([head, "| code | cause | remedy |", "|---|---|---|", *rows]) + "\n"


if __name__ == "__main__":
    print(page(), end="")  # noqa: T201 - this is the command
