"""TFDS builders of the full-size data sets: names, versions and features.

Boundary: declares the records; the modules of the data sets fill them. Needs the extra ``[data]``:
import it inside functions. No builder needs TensorFlow.

Names and versions of ``imagenet2012``, ``imagenet_v2`` and ``ogbg_molpcba`` are those of TensorFlow
Datasets (https://www.tensorflow.org/datasets/catalog), so that a copy prepared by either can be
read by the other.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.datasets.ogbg_molpcba import ogbg_molpcba_dataset_builder

Examples = Mapping[str, Callable[[], Iterable[tuple[Any, Mapping[str, Any]]]]]
"""By split, a function that returns pairs of (key, example)."""


def _imagenet_features() -> Any:
    names = tfds.core.tfds_path("datasets/imagenet2012/labels.txt")
    return tfds.features.FeaturesDict({
        "image": tfds.features.Image(encoding_format="jpeg"),
        "label": tfds.features.ClassLabel(names_file=names),
        "file_name": tfds.features.Text(),
    })  # fmt: skip


with tfds.core.registered.skip_registration():

    class _FromExamples(tfds.core.GeneratorBasedBuilder):  # type: ignore[misc]
        """A builder that takes its examples at construction.

        Args:
            examples: what ``download_and_prepare`` writes; reading needs none.
        """

        VERSION = tfds.core.Version("1.0.0")

        def __init__(self, *, examples: Examples | None = None, **options: Any) -> None:
            self._examples = examples or {}
            super().__init__(**{"file_format": "array_record", **options})

        def _split_generators(self, dl_manager: Any) -> Any:
            return {split: make() for split, make in self._examples.items()}

        def _generate_examples(self) -> Any:
            raise NotImplementedError  # abstract in TFDS; _split_generators needs none

    class Criteo1tb(_FromExamples):
        """Blocks of rows of 40 integers: label, 13 integers, 26 buckets; in the raw order."""

        name = "criteo1tb"

        def _info(self) -> Any:
            rows = tfds.features.Tensor(
                shape=(None, 40), dtype=np.int32, encoding=tfds.features.Encoding.BYTES
            )
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict({"rows": rows}),
                disable_shuffling=True,
            )

    class FastmriKnee(_FromExamples):
        """Slices of knee volumes in the raw order: prepared k-space and reconstruction."""

        name = "fastmri_knee"

        def _info(self) -> Any:
            raw = tfds.features.Encoding.BYTES
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict({
                    "kspace": tfds.features.Tensor(
                        shape=(320, None, 2), dtype=np.float32, encoding=raw
                    ),
                    "target": tfds.features.Tensor(
                        shape=(320, 320), dtype=np.float32, encoding=raw
                    ),
                    "volume_max": tfds.features.Scalar(dtype=np.float32),
                    "file_name": tfds.features.Text(),
                    "slice": tfds.features.Scalar(dtype=np.int32),
                }),
                disable_shuffling=True,
            )  # fmt: skip

    class Imagenet2012(_FromExamples):
        """ILSVRC2012 images as JPEG, with label and file name; the key is the file name."""

        name = "imagenet2012"
        VERSION = tfds.core.Version("5.1.0")

        def _info(self) -> Any:
            return tfds.core.DatasetInfo(
                builder=self, features=_imagenet_features(), supervised_keys=("image", "label")
            )

    class ImagenetV2(_FromExamples):
        """ImageNet-v2 images; the key is ``LABEL_FILE``, the file name ``LABEL/FILE``."""

        name = "imagenet_v2"
        VERSION = tfds.core.Version("3.0.0")
        BUILDER_CONFIGS: ClassVar[Any] = [tfds.core.BuilderConfig(name="matched-frequency")]

        def _info(self) -> Any:
            return tfds.core.DatasetInfo(
                builder=self, features=_imagenet_features(), supervised_keys=("image", "label")
            )

    class OgbgMolpcba(ogbg_molpcba_dataset_builder.Builder):  # type: ignore[misc]
        """TFDS' own builder of ogbg-molpcba, which reads the archive where it lies.

        Args:
            archive: ``pcba.zip``; reading a prepared copy needs none.
        """

        name = "ogbg_molpcba"

        def __init__(self, *, archive: Path | None = None, **options: Any) -> None:
            self._archive = archive
            super().__init__(**{"file_format": "array_record", **options})

        def dataset_info_from_configs(self, **described: Any) -> Any:
            return tfds.core.DatasetInfo(builder=self, **described)  # theirs looks for a package

        def _split_generators(self, dl_manager: Any) -> Any:
            return super()._split_generators(_Unpacked(self._archive))


class _Unpacked:
    """In place of TFDS' download manager: a local archive, read without unpacking.

    Args:
        archive: the archive.
    """

    def __init__(self, archive: Path | None) -> None:
        self._archive = archive

    def download_and_extract(self, url: str) -> zipfile.Path:
        if self._archive is None:
            raise ValueError(f"archive: expected a copy of {url}, got none")
        return zipfile.Path(self._archive)
