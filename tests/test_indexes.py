"""Candidates by inverted lists against exact search: no false pair, none lost to codes or rounding, the same bytes with any threads."""

from pathlib import Path

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks import _indexes
from tasks.measures import indexes
from tasks.measures.indexes import Plan, add_rows, candidate_pairs, centroids, index_plan, probes, require_searchable, rounded, trained_index, unique_pairs
from tasks.measures.neighbours import row_pairs, similar_pairs
from tests import descriptor_worlds

GB = 2**30
SMALL = Plan("ivf", "IVF64,SQ8", 64, 3000, 0)


@pytest.fixture(scope="module")
def world() -> descriptor_worlds.World:
    return descriptor_worlds.clustered(4000, 3, d=128)


@pytest.fixture(scope="module")
def index(world: descriptor_worlds.World) -> faiss.IndexIVF:
    return built(SMALL, world.vectors)


@pytest.fixture
def threads():
    before = faiss.omp_get_max_threads()
    yield faiss.omp_set_num_threads
    faiss.omp_set_num_threads(before)


def built(plan: Plan, vectors: np.ndarray) -> faiss.IndexIVF:
    made = trained_index(plan, vectors, 0)
    add_rows(made, vectors, 0, len(vectors))
    return made


def as_set(pairs: np.ndarray) -> set[tuple[int, int]]:
    return {(a, b) for a, b in pairs.tolist()}


def bytes_of(index: faiss.IndexIVF) -> bytes:
    return faiss.serialize_index(index).tobytes()


@pytest.mark.parametrize(("n", "memory", "kind", "key"), [
    (1, GB, "exact", "Flat"), (150_000, GB, "exact", "Flat"), (150_001, GB, "ivf", "IVF2048,SQ8"), (1_000_000, 12 * GB, "ivf", "IVF4096,SQ8"),
    (10_000_000, 12 * GB, "ivf", "IVF16384,SQ8"), (10_000_000, 4 * GB, "ivf_on_disk", "IVF16384,SQ8"),
    (10_000_001, 64 * GB, "ivf", "IVF65536_HNSW32,SQ8"), (2_000_000_000, 64 * GB, "ivf_on_disk", "IVF65536_HNSW32,SQ8"),
])
def test_a_plan_follows_from_rows_and_memory(n, memory, kind, key):
    plan = index_plan(n, 512, memory)
    assert (plan.kind, plan.key) == (kind, key)
    assert plan == index_plan(n, 512, memory)


@given(st.integers(1, 3 * 10**9), st.integers(1, 2048), st.integers(30, 45))
def test_a_plan_fits_its_memory_or_says_what_it_takes(n, d, bits):
    try:
        plan = index_plan(n, d, 2**bits)
    except ValueError as error:
        needed = int(str(error).rsplit(" ", 1)[1].replace(",", ""))
        assert needed > 2**bits and index_plan(n, d, needed).n_train == 10 * index_plan(n, d, needed).n_lists
        return
    assert (plan.kind == "exact") is (n <= 150_000)
    assert plan.kind != "ivf" or plan.n_bytes <= 2**bits
    assert plan.n_train <= n and plan.n_train * d * 8 <= 2**bits


def test_what_an_index_takes_is_what_was_planned(index):
    planned = index_plan(150_001, 512, GB)
    codes = 4000 * (128 + 8) + 64 * 4 * 128
    assert codes <= len(bytes_of(index)) <= 1.1 * codes
    assert planned.n_bytes == 150_001 * (512 + 8) + 2048 * 4 * 512


def test_no_rows_and_too_little_memory_are_errors():
    for n, d in ((0, 512), (5, 0)):
        with pytest.raises(ValueError, match="both are at least 1"):
            index_plan(n, d, GB)
    with pytest.raises(ValueError, match="do not hold the rows to train 4,096 lists"):
        index_plan(1_000_000, 512, 10**8)
    with pytest.raises(ValueError, match="an exact plan has no index"):
        trained_index(index_plan(100, 8, GB), np.zeros((100, 8)), 0)


@pytest.mark.parametrize("key", ["IVF1024,PQ64x4fs", "PQ16x4fs", "IVF64,PQ16x4fsr", "IVF64,PQ16x4fs_64", "IVF64,RaBitQfs", "OPQ16,IVF64(PQ16x4fs),PQ16x4fs"])
def test_fast_scan_with_a_range_search_is_refused(key):
    with pytest.raises(ValueError, match="range search of fast-scan codes loses pairs"):
        require_searchable(key, "range")
    require_searchable(key, "nearest")


@pytest.mark.parametrize("key", ["Flat", "IVF4096,SQ8", "IVF65536_HNSW32,SQ8", "IVF64,PQ16x4", "OPQ16_64,IVF64,RaBitQ"])
def test_other_keys_are_searched_either_way(key):
    assert require_searchable(key, "range") is require_searchable(key, "nearest") is None


def test_no_index_of_fast_scan_codes_is_trained():
    with pytest.raises(ValueError, match="range search of fast-scan codes loses pairs"):
        trained_index(Plan("ivf", "IVF64,PQ16x4fs", 64, 3000, 0), np.zeros((3000, 64), np.float16), 0)


def test_this_faiss_still_finds_nothing_or_everything_there():
    """Should this fail after an upgrade, the trap is gone, and require_searchable may go with it."""
    vectors = descriptor_worlds.directions(20_000, 64, np.random.default_rng(0))
    for metric, bound, n_results in ((faiss.METRIC_INNER_PRODUCT, 0.9, 0), (faiss.METRIC_L2, 0.2, 3_900_000)):
        fast_scan = faiss.index_factory(64, "IVF64,PQ16x4fs", metric)
        fast_scan.train(vectors)
        fast_scan.add(vectors)
        fast_scan.nprobe = 64
        assert (fast_scan.search(vectors[:200], 1)[1][:, 0] == np.arange(200)).all()  # each row finds itself
        ends, score, _ = fast_scan.range_search(vectors[:200], bound)
        assert ends[-1] == 0 if n_results == 0 else ends[-1] > n_results and (score > 1.5).sum() > n_results / 2  # none is; all are, far beyond the radius


@given(st.integers(0, 10_000), st.integers(1, 700))
@settings(deadline=None, max_examples=25)
def test_sums_of_rounded_vectors_are_exact_whatever_the_block(seed, block):
    rng = np.random.default_rng(seed)
    queries = rounded(descriptor_worlds.directions(700, 96, rng))
    centres = rounded(descriptor_worlds.directions(40, 96, rng), 11)
    exact = queries.astype(np.float64) @ centres.T.astype(np.float64)
    for start in range(0, 700, block):
        similarity, lists = faiss.knn(queries[start:start + block], centres, 5, metric=faiss.METRIC_INNER_PRODUCT)
        assert np.array_equal(similarity, np.take_along_axis(exact[start:start + block], lists, axis=1))


def test_an_index_is_the_same_bytes_with_one_thread_and_with_two(world, threads):
    for plan in (SMALL, Plan("ivf", "IVF64_HNSW32,SQ8", 64, 3000, 0)):
        made = []
        for n in (1, 2):
            threads(n)
            made.append(bytes_of(built(plan, world.vectors)))
        assert made[0] == made[1]


def test_centroids_are_of_unit_length_and_none_is_without_rows():
    rows = rounded(np.concatenate([np.repeat(np.eye(16, dtype=np.float32)[:4], 200, axis=0), descriptor_worlds.directions(60, 16, np.random.default_rng(0))]))
    made = centroids(rows, 32, 0)
    np.testing.assert_allclose(np.linalg.norm(made, axis=1), 1, atol=2e-3)
    assert np.array_equal(made, rounded(made, 11))
    assert len(np.unique(faiss.knn(rows, made, 1, metric=faiss.METRIC_INNER_PRODUCT)[1])) > 24
    with pytest.raises(ValueError, match="31 rows cannot train 32 lists"):
        centroids(rows[:31], 32, 0)


def test_centroids_are_about_as_good_as_those_of_faiss(world):
    rows = rounded(world.vectors)
    theirs = faiss.Kmeans(128, 64, niter=10, spherical=True, seed=1)
    theirs.train(rows)
    ours = centroids(rows, 64, 0)
    fit = [faiss.knn(rows, c, 1, metric=faiss.METRIC_INNER_PRODUCT)[0].mean() for c in (ours, np.asarray(theirs.centroids))]
    assert fit[0] > 0.98 * fit[1]


def test_with_all_lists_no_pair_above_the_floor_is_lost_and_none_is_false(world, index):
    expected, similarity = similar_pairs(world.vectors, 0.5, 16)
    pairs, found = candidate_pairs(index, world.vectors, np.arange(4000), 0.5, 16, 64)
    assert len(expected) > 5000 and np.array_equal(pairs, expected) and np.array_equal(found, similarity)


def test_codes_are_off_by_less_than_the_slack(world, index):
    ids = np.arange(4000)
    restored = index.sa_decode(index.sa_encode(world.vectors.astype(np.float32)))
    assert np.abs(np.einsum("nd,nd->n", restored - world.vectors, world.vectors[np.roll(ids, 1)])).max() < indexes.SLACK / 2
    assert np.linalg.norm(restored - world.vectors, axis=1).max() < indexes.SLACK  # no query at all is off by more (Cauchy-Schwarz)


def test_pairs_are_the_same_bytes_with_any_threads_and_any_blocks(world, index, threads):
    together = candidate_pairs(index, world.vectors, np.arange(4000), 0.5, 16, 4)
    for n, size in ((1, 4000), (2, 1000), (1, 77)):
        threads(n)
        blocks = [candidate_pairs(index, world.vectors, np.arange(start, min(start + size, 4000)), 0.5, 16, 4) for start in range(0, 4000, size)]
        pairs, first = np.unique(np.concatenate([b[0] for b in blocks]), axis=0, return_index=True)
        assert np.array_equal(pairs, together[0]) and np.array_equal(np.concatenate([b[1] for b in blocks])[first], together[1])


@pytest.mark.parametrize("most", [None, 8])
def test_a_group_larger_than_k_is_found_whole_also_where_a_gpu_returns_no_more(monkeypatch, most):
    rng = np.random.default_rng(1)
    group = descriptor_worlds.near(np.repeat(descriptor_worlds.directions(1, 32, rng), 90, axis=0), 0.9, rng)
    vectors = np.concatenate([descriptor_worlds.directions(900, 32, rng), group]).astype(np.float16)
    index = built(Plan("ivf", "IVF8,SQ8", 8, 900, 0), vectors)
    if most:
        monkeypatch.setattr(indexes, "_most", lambda index: most)
    pairs, _ = candidate_pairs(index, vectors, np.arange(990), 0.8, 3, 8)
    assert as_set(pairs) == as_set(similar_pairs(vectors, 0.8, 3)[0]) and len(pairs) > 3900


def test_probes_are_as_many_as_the_recall_asked_for_takes(world, index):
    rows = np.random.default_rng(0).permutation(4000)
    few, many = (probes(index, world.vectors, rows, 0.5, target) for target in (0.5, 1.0))
    assert few.n_probe == 8 and few.n_probe <= many.n_probe <= 64
    assert many.n_found == many.n_exact == few.n_exact >= indexes.FEWEST_PAIRS and many.n_sampled == 2000
    exact = similar_pairs(world.vectors, 0.5, 16)[0]
    recall = len(candidate_pairs(index, world.vectors, np.arange(4000), 0.5, 16, many.n_probe)[0]) / len(exact)
    assert recall > 0.99


def test_a_sample_with_few_pairs_grows_and_says_how_far():
    vectors = descriptor_worlds.directions(5000, 64, np.random.default_rng(0)).astype(np.float16)
    vectors[4000:4100] = vectors[:100]
    index = built(Plan("ivf", "IVF16,SQ8", 16, 5000, 0), vectors)
    found = probes(index, vectors, np.random.default_rng(0).permutation(5000)[:4500], 0.9)
    assert found.n_sampled == 4500 and 80 <= found.n_exact == found.n_found <= 100
    assert probes(index, vectors, np.arange(1000, 2000), 0.9).n_exact == 0


def test_no_queries_have_no_pairs_and_a_row_is_no_pair_with_itself(world, index):
    pairs, similarity = candidate_pairs(index, world.vectors, np.zeros(0, np.int64), 0.5, 16, 8)
    assert pairs.shape == (0, 2) and similarity.shape == (0,)
    assert unique_pairs(np.array([[3, 1], [1, 3], [2, 2], [0, 4]]), 5).tolist() == [[0, 4], [1, 3]]


def test_pairs_of_rows_are_those_of_all_rows_that_touch_them(world):
    rows = np.array([5, 3999, 17])
    expected = {pair for pair in as_set(similar_pairs(world.vectors, 0.4, 8)[0]) if set(pair) & set(rows.tolist())}
    assert as_set(unique_pairs(row_pairs(world.vectors, rows, 0.4, 8)[0], 4000)) == expected


def test_a_saved_index_finds_what_it_found(world, index, tmp_path: Path):
    _indexes.save(index, tmp_path / "all.index")
    assert [p.name for p in tmp_path.iterdir()] == ["all.index"]
    expected = candidate_pairs(index, world.vectors, np.arange(500), 0.5, 16, 8)
    for is_mapped in (False, True):
        loaded = _indexes.load(tmp_path / "all.index", is_mapped)
        assert all(np.array_equal(a, b) for a, b in zip(candidate_pairs(loaded, world.vectors, np.arange(500), 0.5, 16, 8), expected, strict=True))


def test_shards_merged_on_disk_find_what_one_index_in_memory_finds(tmp_path: Path, monkeypatch):
    world = descriptor_worlds.clustered(20_000, 5, d=128)
    trained = trained_index(SMALL, world.vectors, 0)
    _indexes.save(trained, tmp_path / "trained.index")
    shards = [tmp_path / f"{start}.index" for start in (0, 8000, 16_000)]
    for path, start in zip(shards, (0, 8000, 16_000), strict=True):
        _indexes.save_shard(tmp_path / "trained.index", world.vectors, start, min(start + 8000, 20_000), path)
    (tmp_path / "built" / "all.1.partial").mkdir(parents=True)  # of a killed process
    _indexes.merge(tmp_path / "trained.index", shards, tmp_path / "built" / "all")
    assert [p.name for p in (tmp_path / "built").iterdir()] == ["all"]
    (tmp_path / "built").rename(tmp_path / "moved")  # a DVC checkout elsewhere
    merged = _indexes.load(tmp_path / "moved" / "all")
    add_rows(trained, world.vectors, 0, 20_000)
    one, other = (candidate_pairs(index, world.vectors, np.arange(20_000), 0.5, 16, 8) for index in (trained, merged))
    assert merged.ntotal == 20_000 and len(one[0]) > 10_000
    assert np.array_equal(one[0], other[0]) and np.array_equal(one[1], other[1])
    with pytest.raises(ValueError, match="no shards to merge"):
        _indexes.merge(tmp_path / "trained.index", [], tmp_path / "none")
