"""The published weights of learned optimizers by name, and where fetched copies lie.

Boundary: names to files; ``files`` reads them, ``fetch`` downloads them.

No digest of these files is published. The first fetch records the one it finds.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
from typing import TYPE_CHECKING, Final

from timetrial.framework.errors import UserError
from timetrial.framework.paths import PathError, user_path
from timetrial.optimizers.weights.layouts import CELO, CELO2, CELO_ADAM, VELO, Layout
from timetrial.optimizers.weights.trees import WeightsError

if TYPE_CHECKING:  # loads NumPy, which lists of optimizers need not
    from timetrial.optimizers.weights.files import LearnedWeights

HUB = "https://huggingface.co"
"""The Hugging Face hub; ``HF_ENDPOINT`` names a mirror, as for the hub's own tools."""


@dataclasses.dataclass(frozen=True)
class Published:
    """Weights that somebody published.

    Attributes:
        name: as in ``timetrial fetch NAME``.
        title: of the weights, in messages.
        layout: the rule they are for.
        page: web page that describes them.
        address: URL of the file; begins with "/" on the hub.
        size_bytes: of the published file.
        exact: whether a file of another size is refused; else it is only noted.
        place: file in the cache directory.
        cards: URLs of files that describe the weights, kept beside them where there are such.
        licence: shown before the weights are fetched.
    """

    name: str
    title: str
    layout: Layout
    page: str
    address: str
    size_bytes: int
    exact: bool
    place: str
    cards: tuple[str, ...]
    licence: str

    @property
    def url(self) -> str:
        """URL of the file."""
        return resolved(self.address)

    @property
    def on_hub(self) -> bool:
        """Whether the file is on the Hugging Face hub."""
        return self.address.startswith("/")

    @property
    def path(self) -> pathlib.Path:
        """File of the fetched copy.

        Raises:
            WeightsError: there is no cache directory.
        """
        return cache_directory() / self.place


def resolved(address: str) -> str:
    """The URL of an address of the catalogue, on the hub's mirror if there is one."""
    if not address.startswith("/"):
        return address
    return (os.environ.get("HF_ENDPOINT") or HUB).rstrip("/") + address


def _on_hub(name: str, title: str, layout: Layout, size_bytes: int) -> Published:
    """Weights of amoudgl, the first author of Celo, on the Hugging Face hub."""
    files = f"/amoudgl/{name}/resolve/main"
    return Published(
        name=name,
        title=title,
        layout=layout,
        page=f"{HUB}/amoudgl/{name}",
        address=f"{files}/theta.state",
        size_bytes=size_bytes,
        exact=False,
        place=f"{name}/theta.state",
        cards=(f"{files}/README.md", f"{files}/config.json"),
        licence=(
            f"{title}'s weights are published under the MIT licence at {HUB}/amoudgl/{name}; "
            "timetrial does not contain them and fetches them for you."
        ),
    )


PUBLISHED: Final[dict[str, Published]] = {
    "velo": Published(
        name="velo",
        title="VeLO",
        layout=VELO,
        page="https://github.com/google/learned_optimization",
        address=(
            "https://storage.googleapis.com/gresearch/learned_optimization/pretrained_lopts/"
            "aug12_continue_on_bigger_2xbs_200kstep_bigproblem_v2_5620/params"
        ),
        size_bytes=9_282_564,
        exact=True,
        place="velo/google/params",
        cards=(),
        licence=(
            "Google has not stated a licence for these weights (an open question upstream: "
            "https://github.com/google/learned_optimization/issues/272). They are fetched from "
            "Google's public bucket for your own use; timetrial neither contains nor "
            "redistributes them."
        ),
    ),
    "celo2": _on_hub("celo2", "Celo2", CELO2, 1_833),
    "celo2-base": _on_hub("celo2-base", "Celo2-base", CELO2, 1_833),
    "celo": _on_hub("celo", "Celo", CELO, 149_216),
    "celo-adam": _on_hub("celo-adam", "Celo-Adam", CELO_ADAM, 147_803),
}
"""Published weights by name. Sizes: VeLO's released file has hidden size 512 and bank size 256."""


def cache_directory() -> pathlib.Path:
    """Directory of fetched files.

    ``$TIMETRIAL_CACHE``, else ``$XDG_CACHE_HOME/timetrial``, else ``~/.cache/timetrial``. An empty
    variable counts as unset.

    Raises:
        WeightsError: no variable says where, and this user has no home directory.
    """
    try:
        if own := os.environ.get("TIMETRIAL_CACHE"):
            return user_path(own)
        if shared := os.environ.get("XDG_CACHE_HOME"):
            return user_path(shared) / "timetrial"
        return user_path("~/.cache/timetrial")
    except PathError as error:
        raise WeightsError(
            "no cache directory: this user has no home directory; expected TIMETRIAL_CACHE=DIR"
        ) from error


def is_fetched(name: str) -> bool:
    """Whether weights of the catalogue are here; without a cache directory they are not."""
    try:
        return os.path.exists(PUBLISHED[name].path)
    except WeightsError:
        return False


def published(name: str) -> LearnedWeights:
    """Published weights that have been fetched.

    Args:
        name: a name of ``PUBLISHED``.

    Raises:
        UserError: unknown name.
        WeightsError: they have not been fetched, or the cached file is damaged; the message says
            what to do.
    """
    if name not in PUBLISHED:
        raise UserError(f"expected one of {', '.join(PUBLISHED)}, got {name!r}")
    entry = PUBLISHED[name]
    path = entry.path
    if not os.path.exists(path):
        raise WeightsError(
            f"{entry.title}'s weights are not on this machine: run `timetrial fetch {name}`, or "
            f"download {entry.url} and run `timetrial fetch {name} --from FILE` or put it at {path}"
        )
    from timetrial.optimizers.weights.files import load

    try:
        return load(path, entry.layout, source=name)
    except WeightsError as error:
        raise WeightsError(f"{error}; run `timetrial fetch {name}` to replace it") from None


def missing(name: str) -> str:
    """What is wrong with published weights on this machine, in one line; "" if nothing.

    Args:
        name: a name of ``PUBLISHED``.
    """
    if not is_fetched(name):
        return f"its weights are not on this machine: timetrial fetch {name}"
    try:
        published(name)
    except WeightsError as error:
        return str(error)
    return ""
