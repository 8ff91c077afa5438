"""Studies as TOML: what is read, what is refused, and how."""

from pathlib import Path

import pytest

from simrlhf.core.checks import InputError
from simrlhf.study.settings import SIZES
from simrlhf.study.spec import build_study, list_studies, load_study, study_name
from simrlhf.study.tasks import settings_of

MINIMAL = """
title = "a title"
question = "a question?"
cell = "recovery"
[grid]
n_pairs = [20, 10]
estimators = ["share_b"]
[world]
n_users = [3, 5]
d1 = 6
rank = 2
[size.tiny]
repetitions = 4
"""


def _write(folder: Path, text: str = MINIMAL) -> str:
    path = folder / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("name", sorted(list_studies()))
@pytest.mark.parametrize("size", SIZES)
def test_every_shipped_study_is_valid_at_every_size(name: str, size: str) -> None:
    spec = load_study(name, size=size)
    assert spec.points
    assert spec.question


def test_lists_are_swept_and_sample_sizes_ascend(tmp_path: Path) -> None:
    spec = load_study(_write(tmp_path))
    assert [point.world.n_users for point in spec.points] == [3, 5]
    assert {point.n_pairs for point in spec.points} == {(10, 20)}
    assert spec.n_cells == 4
    assert spec.name == "mine"


def test_a_size_and_then_an_override_win(tmp_path: Path) -> None:
    path = _write(tmp_path)
    assert load_study(path, size="smoke").repetitions == 1
    assert load_study(path, size="tiny").repetitions == 4
    assert load_study(path, size="tiny", overrides=["repetitions=7"]).repetitions == 7
    assert load_study(path, overrides=["world.nu=2.5"]).points[0].world.nu == 2.5
    bounded = load_study(path, overrides=["fit.norm_bound=3.0"]).points[0]
    assert dict(bounded.fit) == {"norm_bound": 3.0}


def test_ranges_are_even_in_the_logarithm_and_whole_where_the_field_is(tmp_path: Path) -> None:
    ranges = ["n_pairs={from=10, to=1000, points=3}", "nu={from=0.5, to=2.0, points=3}"]
    spec = load_study(_write(tmp_path), overrides=[*ranges, "n_users=3"])
    assert {point.n_pairs for point in spec.points} == {(10, 100, 1000)}
    assert [point.world.nu for point in spec.points] == pytest.approx([0.5, 1.0, 2.0])


def test_settings_of_the_fit_are_swept_and_none_is_a_value(tmp_path: Path) -> None:
    spec = load_study(_write(tmp_path), overrides=["fit.norm_bound=['none', 2.0]", "n_users=3"])
    assert [dict(point.fit)["norm_bound"] for point in spec.points] == [None, 2.0]


def test_zipped_keys_move_together_and_sizes_of_one_world_share_a_sample(tmp_path: Path) -> None:
    zipped = ["zip=['n_users', 'n_pairs']", "n_users=[3, 5]", "n_pairs=[40, 24]", "nu=[0.5, 1]"]
    spec = load_study(_write(tmp_path), overrides=zipped)
    found = [(p.world.n_users, p.world.nu, p.n_pairs) for p in spec.points]
    assert found == [(3, 0.5, (40,)), (3, 1, (40,)), (5, 0.5, (24,)), (5, 1, (24,))]
    merged = load_study(_write(tmp_path), overrides=["n_users=[3, 3]", *zipped[:1], zipped[2]])
    assert [p.n_pairs for p in merged.points] == [(24, 40)]


def test_metrics_are_chosen_and_their_order_does_not_matter(tmp_path: Path) -> None:
    path = _write(tmp_path)
    assert load_study(path).metrics == ("recovery", "bounds")
    assert load_study(path, overrides=["metrics=['bounds', 'recovery']"]).metrics == (
        "recovery",
        "bounds",
    )
    assert load_study(path, overrides=["metrics='recovery'"]).metrics == ("recovery",)


def test_a_study_is_built_again_from_its_settings(tmp_path: Path) -> None:
    spec = load_study(_write(tmp_path), size="tiny", overrides=["nu=[0.5, 1.0]"])
    assert build_study(spec.name, spec.size, spec.settings) == spec


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("n_pair=3", r"unknown key in --set 'n_pair'.*did you mean 'n_pairs'"),
        ("norm_bond=3", r"one of (?!.*norm_bound, .*norm_bound, ).*did you mean 'norm_bound'"),
        ("title='x'", r"title cannot be changed in --set: .*only keys of \[grid\], \[world\], "),
        ("norm_bound=3", r"ambiguous: write world\.norm_bound or fit\.norm_bound"),
        ("n_pairs", r"--set takes key=value, got 'n_pairs'"),
        ("link=identity", r"not a TOML value; quote text"),
        ("nu=-1.0", r"nu = -1 must be greater than 0"),
        ("d1=20000", r"share_b forms a matrix of side 20,000 from features of 20,000 x 1"),
        ("rank=9", r"rank = 9 must be at most 6.*min\(d1, N d2\) = min\(6, 3\)|rank = 9 must be"),
        ("n_pairs=0", r"n_pairs = 0 must be at least 1"),
        ("repetitions=0", r"repetitions = 0 must be at least 1"),
        ("estimators=['shareb']", r"unknown estimator 'shareb'.*did you mean 'share_b'"),
        ("n_users=[]", r"world\.n_users is empty"),
        ("metrics=['bound']", r"unknown metric 'bound'.*did you mean 'bounds'"),
        ("estimators=[]", r"estimators is empty"),
        ("n_pairs={from=9, to=3, points=4}", r"grid\.n_pairs\.to = 3 must be greater than 9"),
        ("n_pairs={from=9, to=30}", r"the range grid\.n_pairs needs points"),
        ("nu={from=0, to=3, points=2}", r"world\.nu\.from = 0 must be greater than 0.*linear"),
        ("nu={from=1, to=3, point=2}", r"unknown key of the range world\.nu 'point'"),
        ("zip=['n_users', 'n_user']", r"unknown key in zip 'n_user'.*did you mean 'n_users'"),
        ("zip=['n_users']", r"has one key; it takes two or more"),
        ("zip='n_users'", r"zip takes names of swept keys"),
        ("nu={from=1, to=2, points=99999}", r"399,996 points, above the limit 100,000"),
        ("fit.ridge=-1", r"fit\.ridge = -1 must be at least 0"),
        ("fit.norm_bound='x'", r"fit\.norm_bound must be a real number, got 'x'"),
        ("init='foo'", r"unknown fit\.init 'foo'"),
        ("seed=-1", r"seed = -1 must be at least 0"),
        ("tail=5.0", r"largest tail singular value .* must stay below sigma_k .*lower tail"),
    ],
)
def test_a_wrong_override_is_one_line(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load_study(_write(tmp_path), overrides=[override])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("[grid]", "[gird]"), r"unknown section in mine\.toml 'gird'.*did you mean 'grid'"),
        (("d1 = 6", "d_1 = 6"), r"unknown key of \[world\] in mine\.toml 'd_1'"),
        (("title =", "titel ="), r"unknown section in mine\.toml 'titel'.*did you mean 'title'"),
        (("[world]", "[world"), r"mine\.toml is not valid TOML"),
        (
            ("[size.tiny]\nrepetitions = 4", "[size]\ntiny = 3"),
            r"size in mine\.toml must be tables",
        ),
        (("[size.tiny]", "[size.tyni]"), r"unknown size in mine\.toml 'tyni'"),
        (
            ("[size.tiny]", "[size.paper]\nn_userz = 3\n[size.tiny]"),
            r"unknown key in mine\.toml \[size\.paper\] 'n_userz'.*did you mean 'n_users'",
        ),
        (
            ("[size.tiny]", '[size.tiny]\nquestion = "why?"'),
            r"question cannot be changed in mine\.toml \[size\.tiny\]: title, question, cell are",
        ),
        (('cell = "recovery"\n', ""), r"mine\.toml needs a line cell ="),
        (('"recovery"', '"recovry"'), r"unknown cell function 'recovry'.*did you mean 'recovery'"),
        (('estimators = ["share_b"]', ""), r"mine\.toml names no estimators"),
    ],
)
def test_a_typo_in_a_study_file_is_one_line(
    tmp_path: Path, change: tuple[str, str], message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load_study(_write(tmp_path, MINIMAL.replace(*change)))
    assert "\n" not in str(caught.value)


def test_a_byte_order_mark_is_no_part_of_a_study(tmp_path: Path) -> None:
    plain = load_study(_write(tmp_path))
    marked = load_study(_write(tmp_path, "\ufeff" + MINIMAL))
    assert marked == plain
    assert marked.digest == plain.digest


def test_a_study_file_is_known_by_what_it_says(tmp_path: Path) -> None:
    digest = load_study(_write(tmp_path)).digest
    assert load_study(_write(tmp_path, "# why\n" + MINIMAL), size="tiny").digest == digest
    assert load_study(_write(tmp_path, MINIMAL.replace("d1 = 6", "d1 = 7"))).digest != digest


@pytest.mark.parametrize(
    ("given", "name"),
    [("a/my.study.toml", "my.study"), ("my.study", "my.study"), ("mine.toml", "mine"), ("m", "m")],
)
def test_only_the_suffix_of_a_study_file_is_left_out_of_its_name(given: str, name: str) -> None:
    assert study_name(given) == name


def test_an_unknown_study_names_the_nearest() -> None:
    with pytest.raises(InputError, match=r"unknown study 'subspace_vs_pair'.*did you mean"):
        load_study("subspace_vs_pair")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no study file .*absent\.toml"):
        load_study(str(tmp_path / "absent.toml"))


def test_settings_of_one_estimator_go_to_it_and_common_ones_to_those_that_take_them(
    tmp_path: Path,
) -> None:
    text = MINIMAL.replace("[world]", "[fit]\nnorm_bound = 3.0\n[fit.full]\nridge = 2.0\n[world]")
    path = _write(tmp_path, text)
    fit = load_study(path).points[0].fit
    assert settings_of(fit, "share_b") == (("norm_bound", 3.0),)
    assert settings_of(fit, "full") == (("norm_bound", 3.0), ("ridge", 2.0))
    for wrong, message in (
        ("fit.full.penalty=1.0", r"fit\.full\.penalty: full takes no penalty"),
        ("fit.fulll.ridge=1.0", r"did you mean 'full'"),
        ("fit.full.rige=1.0", r"did you mean 'ridge'"),
        ("fit.full.ridge=-1.0", r"fit\.full\.ridge = -1 must be at least 0"),
    ):
        with pytest.raises(InputError, match=message):
            load_study(path, overrides=[wrong])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("estimators=['share_a']", r"share_a with rank 2 >= d2 = 1 .* it is the full model"),
        ("estimators=['shared_diag']", r"shared_diag .*it is share_b"),
        ("estimators=['shared_core']", r"shared_core with rank 2 .* ask for share_b"),
        ("estimators=['global_plus_local']", r"neither ridge nor norm_bound"),
    ],
)
def test_a_class_that_cannot_take_a_points_shape_is_refused_before_any_work(
    tmp_path: Path, override: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        load_study(_write(tmp_path), overrides=[override])


DECISION = """
[decision]
mdp = "garnet"
n_states = 6
horizon = [2, 3]
"""


def test_a_decision_problem_is_swept_like_a_world(tmp_path: Path) -> None:
    spec = load_study(_write(tmp_path, MINIMAL + DECISION), overrides=['metrics=["decisions"]'])
    found = [(p.world.n_users, p.world.decision.horizon) for p in spec.points]
    assert found == [(3, 2), (3, 3), (5, 2), (5, 3)]
    wider = load_study(_write(tmp_path, MINIMAL + DECISION), overrides=["branching=2", "horizon=4"])
    assert {p.world.decision.horizon for p in wider.points} == {4}
    assert load_study(_write(tmp_path)).points[0].world.decision is None


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["horizont=3"], "did you mean 'horizon'"),
        (["decision.mdp='given'"], r"a study makes its own"),
        (["branching=9"], "branching = 9 must be at most n_states = 6"),
    ],
)
def test_decision_problems_that_cannot_be_are_refused_here(
    tmp_path: Path, overrides: list[str], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        load_study(_write(tmp_path, MINIMAL + DECISION), overrides=overrides)


def test_value_gaps_need_a_decision_problem(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"give it a section \[decision\]"):
        load_study(_write(tmp_path), overrides=['metrics=["decisions"]'])


def test_prompts_are_refused_before_any_work_where_there_are_too_few(tmp_path: Path) -> None:
    texts = ['mdp="texts"', "horizon=1", "n_actions=5", "world.n_users=3"]
    found = load_study(_write(tmp_path, MINIMAL + DECISION), overrides=texts)
    assert found.points[0].world.decision.mdp == "texts"
    with pytest.raises(InputError, match="n_prompts = 60 must be at most 32"):
        load_study(_write(tmp_path, MINIMAL + DECISION), overrides=[*texts, "n_states=60"])
    with pytest.raises(InputError, match="has features of d2 = 1, got d2 = 2"):
        load_study(_write(tmp_path, MINIMAL + DECISION), overrides=[*texts, "d2=2"])
