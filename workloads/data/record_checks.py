"""What the records of each full-size data set must hold.

Boundary: prepared data sets in, one sentence per check out; a check that fails raises ``Failed``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from timetrial.framework.types import Split
from timetrial.workloads.data import criteo, criteo_text, fastmri, fastmri_slices, imagenet, ogbg
from timetrial.workloads.data.farmhash import fingerprint
from timetrial.workloads.data.prepared import Manifest, Records, load_manifest

BLOCKS: Final = 2_000
"""Largest number of Criteo's blocks that are read per split."""

TOLERANCE: Final = 1e-3
"""Largest difference to a reconstruction, relative to its maximum."""

POSITIVES: Final = (0.02, 0.05)
"""Range of the share of clicks in each split of Criteo, about 3 %."""

PER_CLASS: Final = {"train": (732, 1_300), "validation": (50, 50), "test": (10, 10)}
"""Least and largest number of images of a label."""

HASHES: Final = {
    ("68fd1e64", 0): 9066014191666271819,
    ("80e26c9b", 1): 421369434436376517,
    ("00000000", 25): 996838853614153993,
}
"""TensorFlow's hashes of categories and columns, modulo 2^63 - 1."""


class Failed(Exception):  # noqa: N818  # the result of a check, not a mistake
    """A check failed; the text says why."""


def _first_rows(manifest: Manifest, split: str) -> Iterator[int]:
    """Number of the first record of each shard of a split."""
    start = 0
    for shard in manifest.splits[split]:
        yield start
        start += shard.examples


def imagenet_labels(root: Path) -> str:
    """Labels from 0 to 999, each as often as in ImageNet; every image is an RGB or grey JPEG."""
    import simplejpeg

    counted = []
    for name in (imagenet.NAME, imagenet.V2_NAME):
        manifest = load_manifest(name, root)
        for split in manifest.splits:
            counts = np.zeros(1000, int)
            records = Records(root / name, split, ("image",))
            for row in range(len(records)):
                record = records[row]
                label = int(record["label"])
                if not 0 <= label < 1000:
                    raise Failed(f"{split} {row}: expected a label from 0 to 999, found {label}")
                counts[label] += 1
                colours = simplejpeg.decode_jpeg_header(record["image"])[2]
                if colours in ("CMYK", "YCCK"):
                    file = record["file_name"].decode()
                    raise Failed(f"{split} {file}: expected RGB or grey, found {colours}")
            least, most = PER_CLASS[split]
            if not (manifest.sample or manifest.skipped) and not (
                least <= counts.min() and counts.max() <= most
            ):
                found = f"{counts.min()} to {counts.max()}"
                raise Failed(f"{split}: expected {least} to {most} images per label, found {found}")
            counted.append(f"{split} {np.count_nonzero(counts):,} labels")
    return ", ".join(counted) + "; every image is an RGB or grey JPEG"


def imagenet_images(root: Path) -> str:
    """One image of each shard can be decoded."""
    from timetrial.workloads.data.jpeg import decoded

    number = 0
    for name in (imagenet.NAME, imagenet.V2_NAME):
        manifest = load_manifest(name, root)
        for split in manifest.splits:
            records = Records(root / name, split, ("image",))
            for row in _first_rows(manifest, split):
                record = records[row]
                pixels = decoded(record["image"])
                if pixels.ndim != 3 or pixels.shape[2] != 3:
                    file = record["file_name"].decode()
                    raise Failed(f"{split} {file}: expected (H, W, 3) pixels, found {pixels.shape}")
                number += 1
    return f"{number:,} decoded, one per shard"


def fastmri_slices_check(root: Path) -> str:
    """Finite slices of at least 320 x 320; one per volume gives its reconstruction."""
    slices, volumes, worst = 0, 0, 0.0
    for split in Split:
        records = Records(root / fastmri.NAME, split.value)
        before = None
        for row in range(len(records)):
            record = records[row]
            place = f"{record['file_name'].decode()}, slice {int(record['slice'])}"
            if rule := _slice_rule(record):
                raise Failed(f"{split} {place}: {rule}")
            if record["file_name"] != before:
                before = record["file_name"]
                half = np.ascontiguousarray(record["kspace"]).view(np.complex64)[..., 0]
                image = fastmri_slices.magnitude(half, np.ones(half.shape[1], bool))
                largest = float(record["target"].max())
                error = float(np.abs(image - record["target"]).max()) / max(largest, 1e-30)
                if error > TOLERANCE:
                    raise Failed(
                        f"{split} {place}: the inverse transform differs from the reconstruction "
                        f"by {error:.1e} of its maximum, expected at most {TOLERANCE:g}"
                    )
                volumes, worst = volumes + 1, max(worst, error)
            slices += 1
    return (
        f"{slices:,} finite slices; the inverse transform of {volumes:,}, one per volume, differs "
        f"from the reconstruction by at most {worst:.0e} of its maximum"
    )


def _slice_rule(record: Mapping[str, Any]) -> str | None:
    """The rule that a prepared slice breaks, or None."""
    kspace, target = record["kspace"], record["target"]
    if kspace.shape[0] != fastmri.SIZE or kspace.shape[1] < fastmri.SIZE:
        return f"expected k-space (320, W >= 320), found {kspace.shape[:2]}"
    if target.shape != (fastmri.SIZE, fastmri.SIZE):
        return f"expected a reconstruction (320, 320), found {target.shape}"
    if not (np.isfinite(kspace).all() and np.isfinite(target).all()):
        return "expected finite numbers"
    if not 0 < record["volume_max"] < np.inf:
        return f"expected a maximum of the volume > 0, found {record['volume_max']}"
    return None


def ogbg_graphs_check(root: Path) -> str:
    """Ends of edges are atoms of the graph, labels are 0, 1 or missing."""
    graphs = edges = 0
    for split in Split:
        data = ogbg.load_graphs(root, split)
        sizes = np.repeat(data.n_node, data.n_edge)
        for name, ends in (("senders", data.senders), ("receivers", data.receivers)):
            if len(ends) != len(sizes) or (ends < 0).any() or (ends >= sizes).any():
                raise Failed(f"{split}: expected {name} that are atoms of their graph")
        if len(data.nodes) != data.n_node.sum():
            raise Failed(f"{split}: expected {data.n_node.sum()} atoms, found {len(data.nodes)}")
        if not np.isin(data.labels, (ogbg.MISSING, 0, 1)).all():
            raise Failed(f"{split}: expected labels 0, 1 or {ogbg.MISSING} for a missing one")
        if data.labels.shape != (data.count, ogbg.TASKS):
            raise Failed(f"{split}: expected {ogbg.TASKS} labels per graph")
        graphs, edges = graphs + data.count, edges + len(ends)
    return f"{graphs:,} graphs with {edges:,} edges between their own atoms; labels 0, 1 or missing"


def ogbg_arrays(root: Path) -> str:
    """The flat arrays are the records: as many, and equal in a hundred places per split."""
    compared = 0
    for split in Split:
        data, records = ogbg.load_graphs(root, split), Records(root / ogbg.NAME, split.value)
        if data.count != len(records):
            raise Failed(f"{split}: expected {len(records)} graphs in arrays, found {data.count}")
        for row in np.unique(np.linspace(0, len(records) - 1, 100).astype(int)):
            record = records[row]
            nodes = slice(data.first_node[row], data.first_node[row] + data.n_node[row])
            edges = slice(data.first_edge[row], data.first_edge[row] + data.n_edge[row], 2)
            ends = np.stack([data.senders[edges], data.receivers[edges]], 1)
            labels = np.where(np.isnan(record["labels"]), ogbg.MISSING, record["labels"])
            if not (
                np.array_equal(data.nodes[nodes], record["node_feat"])
                and np.array_equal(data.edges[edges], record["edge_feat"])
                and np.array_equal(ends, record["edge_index"])
                and np.array_equal(data.labels[row], labels)
            ):
                raise Failed(f"{split}: graph {row} differs between arrays and records")
            compared += 1
    return f"as many graphs as records; {compared} compared"


def criteo_rows_check(root: Path) -> str:
    """Labels are 0 or 1, buckets below the vocabulary, and about 3 % of the labels are 1."""
    vocabularies = np.array(criteo_text.VOCABULARIES)
    manifest = load_manifest(criteo.NAME, root)
    shares = []
    for split in Split:
        records = Records(root / criteo.NAME, split.value)
        count = min(len(records), BLOCKS)
        rows = positives = 0
        for number in np.unique(np.linspace(0, len(records) - 1, count).astype(int)):
            block = records[number]["rows"]
            labels, buckets = block[:, 0], block[:, 1 + criteo_text.INTEGERS :]
            if not np.isin(labels, (0, 1)).all():
                raise Failed(f"{split}, block {number}: expected labels 0 and 1")
            if (buckets < 0).any() or (buckets >= vocabularies).any():
                raise Failed(f"{split}, block {number}: expected buckets below the vocabularies")
            rows, positives = rows + len(block), positives + int(labels.sum())
        share = positives / max(rows, 1)
        if not manifest.sample and not POSITIVES[0] <= share <= POSITIVES[1]:
            low, high = POSITIVES
            raise Failed(f"{split}: expected {low:.0%} to {high:.0%} clicks, found {share:.2%}")
        shares.append(f"{split} {share:.2%} clicks in {rows:,} rows")
    return ", ".join(shares)


def criteo_days(root: Path) -> str:
    """Rows per day add up to the splits."""
    settings = load_manifest(criteo.NAME, root).settings
    days, rows = settings["rows_per_day"], settings["rows"]
    held_out = rows[Split.TEST.value] + rows[Split.VALIDATION.value]
    if len(days) != criteo.DAYS or days[-1] != held_out or sum(days[:-1]) != rows["train"]:
        raise Failed(f"expected {criteo.DAYS} days that add up to {rows}, found {days}")
    return f"{criteo.DAYS} days of {min(days):,} to {max(days):,} rows add up to the splits"


def criteo_hashes(root: Path) -> str:
    """This code hashes known categories as TensorFlow does."""
    for (field, column), expected in HASHES.items():
        number = np.frombuffer(field.encode(), "<u8").astype(np.uint64)
        found = int(fingerprint(number, column)[0]) % (2**63 - 1)
        if found != expected:
            raise Failed(f"{field} in column {column}: expected {expected}, found {found}")
    return f"{len(HASHES)} known values"


RECORD_CHECKS: Final[Mapping[str, Mapping[str, Callable[[Path], str]]]] = {
    "imagenet_resnet": {"labels": imagenet_labels, "images": imagenet_images},
    "fastmri": {"slices": fastmri_slices_check},
    "ogbg": {"graphs": ogbg_graphs_check, "flat arrays": ogbg_arrays},
    "criteo1tb": {"rows": criteo_rows_check, "days": criteo_days, "hashes": criteo_hashes},
}
"""The checks of each data set by name: each takes the root and returns what it found."""
