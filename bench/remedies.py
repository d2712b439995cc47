"""v1 behind the filter that its own audit made: what still comes back in 200 new pictures of each flagged prompt, and what is blocked in vain.

    python -m bench.remedies [--pictures FOLDER]      # in a folder with the example's finished audit; half an hour on two cores

Every picture is of a seed that neither the audit nor the choice of the rule used. Flagged prompts are those of v1's findings. Ordinary ones are the
audit's ordinary prompts that set no threshold, and captions of the training set that the audit never asked. A picture
returns a finding where it is verbatim (l2 and margin as in params.yaml) to an extracted cluster, whatever its prompt.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from tasks import _filter, _pipelines, _settings, _sources, _tables, blocklist, generations, matches
from tasks.measures import rates, verdicts
from tasks.measures.identity import hash63

DRAWS = {"flagged": (11, 200), "ordinary": (12, 80), "never asked": (13, 8)}  # seed of generations.seed_of, pictures; 1 to 3 served to choose the rule
N_NEVER_ASKED = 120


def asked() -> dict[str, list[dict[str, Any]]]:
    """Prompts (prompt_id, seed_id, caption, kind) of the three sources."""
    findings, prompts = _tables.read("findings", "v1").to_pylist(), {r["prompt_id"]: r for r in _tables.read("prompts").to_pylist()}
    settings = _settings.settings("findings")
    kinds = blocklist.kinds(findings, _tables.read("matches", "v1").to_pylist(), settings)
    drawn = {r["prompt_id"] for r in findings if r["n_generations"]}
    images = _tables.read("images").filter(pc.field("split") == "member").to_pylist()
    captions = {hash63("caption", r["caption"]): r["caption"] for r in images if r["caption"] and r["caption"] not in {p["caption"] for p in prompts.values()}}
    extracted = {r["cluster_id"] for r in findings if r["is_extracted"]}
    of_extracted = {r["caption"] for r, c in zip(images, _clusters(images), strict=True) if c in extracted}
    new = [{"prompt_id": i, "seed_id": i, "caption": text, "kind": "never asked"} for i, text in sorted(captions.items()) if text not in of_extracted]
    return {"flagged": [prompts[r["prompt_id"]] | {"kind": "flagged"} for r in findings if r["is_extracted"]],
            "ordinary": [prompts[i] | {"kind": kind} for i, kind in sorted(kinds.items()) if i in drawn and kind == blocklist.ORDINARY],
            "never asked": new[:N_NEVER_ASKED]}


def _clusters(images: list[dict[str, Any]]) -> list[int | None]:
    counted = _tables.read("duplicates", columns=["image_id", "cluster_id"]).to_pydict()
    of = dict(zip(counted["image_id"], counted["cluster_id"], strict=True))
    return [of.get(r["image_id"]) for r in images]


def drawn(sampler: _pipelines.Sampler, prompt: dict[str, Any], seed: int, n: int, folder: Path) -> np.ndarray:
    """[n, h, w, 3] uint8, kept in the folder from one run to the next."""
    file = folder / f"{prompt['prompt_id']}_{seed}_{n}.npy"
    if not file.is_file():
        _tables.put_array(sampler.pictures([prompt["caption"]] * n, [generations.seed_of(seed, prompt["seed_id"], i) for i in range(n)])[0], file)
    return np.load(file, allow_pickle=False)


def returns(pictures: np.ndarray, library: matches.Library, extracted: set[int], settings: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """[n] bool each: verbatim to an extracted cluster; as near to one as a near copy."""
    nearest = matches.by_cluster(library.pictures.l2(pictures / np.float32(255)), library.cluster, len(library.clusters))
    margin, listed = matches.margins(nearest), np.flatnonzero(np.isin(library.clusters, list(extracted)))
    is_verbatim = [[verdicts.is_verbatim(float(nearest[g, c]), float(margin[g, c]), settings["verbatim_l2"], settings["verbatim_margin"]) for c in listed]
                   for g in range(len(pictures))]
    return np.array(is_verbatim, bool).any(axis=1), (margin[:, listed] <= settings["near_copy_margin"]).any(axis=1)


def main() -> None:
    """Print counts by source, and every picture that came past the filter or was blocked in vain."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, default=Path("work") / "bench_remedies")
    parser.add_argument("--blocklist", type=Path, default=Path("data") / "blocklist" / "v1" / "export")
    parser.add_argument("--sources", nargs="+", default=list(DRAWS), choices=list(DRAWS))
    args, settings = parser.parse_args(), _settings.settings("findings")
    release = _sources.release("v1")
    sampler = _pipelines.sampler(release, batch_size=8, device="cpu", defaults=dict.fromkeys(_sources.SAMPLER))
    guard = _filter.RegurgitationFilter.load(args.blocklist)
    library = matches._compared(_tables.read("inputs", side="resolution")["size_px"][0].as_py())
    extracted = {r["cluster_id"] for r in _tables.read("findings", "v1").to_pylist() if r["is_extracted"]}
    rows: dict[str, list[tuple[int, bool, bool, bool]]] = {}
    for source, prompts in asked().items():
        for prompt in prompts if source in args.sources else ():
            seed, n = DRAWS[source]
            pictures = drawn(sampler, prompt, seed, n, args.pictures)
            is_returned, borders = returns(pictures, library, extracted, settings)
            for i, said in enumerate(guard.screened(pictures)):
                rows.setdefault(prompt["kind"], []).append((prompt["prompt_id"], said.is_blocked, bool(is_returned[i]), bool(borders[i])))
                if is_returned[i] if not said.is_blocked else source != "flagged" and not borders[i]:
                    print(f"{'blocked' if said.is_blocked else 'past the filter'}: '{prompt['caption']}', seed {seed}, {i}: {said}", flush=True)
    print("\n| pictures of v1 on new seeds | prompts | pictures | verbatim to a listed image | of these past the filter | others | of these blocked |")
    print("|---|---|---|---|---|---|---|")
    for kind, of in rows.items():
        prompts_, hit, back, near = (np.array(column) for column in zip(*of, strict=True))
        other = ~(back | near) if kind != "flagged" else ~back
        low, high = rates.clopper_pearson(int((hit & other).sum()), int(other.sum()))
        print(f"| {kind} | {len(set(prompts_.tolist()))} | {len(of)} | {back.sum()} | {(back & ~hit).sum()} | {other.sum()} | {(hit & other).sum()} "
              f"({100 * low:.2f} to {100 * high:.2f} %) |")


if __name__ == "__main__":
    main()
