"""The shipped data are what their notice says."""

import re

import numpy as np
import pytest

from simrlhf.core.checks import InputError
from simrlhf.data import load_shipped, shipped, shipped_datasets


@pytest.fixture(scope="module")
def votes():
    return load_shipped("ukpconvarg1")


def test_forty_one_workers_with_200_strict_votes_or_more(votes):
    names, counts = np.unique(votes.user_ids, return_counts=True)
    assert (names.size, votes.n_pairs) == (41, 27853)
    assert counts.min() >= 200
    assert len(np.unique(load_shipped(min_votes=500).user_ids)) == 15


def test_all_strict_votes_and_arguments_are_there():
    everyone = load_shipped(min_votes=1)
    assert everyone.n_pairs == 32849 + 32491  # a1 and a2 of the 84,445 votes; ties are left out
    assert everyone.n_items == 1052
    assert everyone.choice.sum() == 32849
    assert set(everyone.choice) == {0.0, 1.0}


def test_pairs_stay_within_one_of_32_topics(votes):
    assert len(np.unique(votes.groups)) == 32
    topic_of = {}
    for topic, pair in zip(votes.groups, votes.pairs, strict=True):
        for item in pair:
            assert topic_of.setdefault(int(item), topic) == topic


def test_longer_arguments_win_more_often_but_not_with_everybody(votes):
    # lm.md: P(prefers the longer) runs from 0.50 to 0.84 over the workers
    length = np.array([len(text.split()) for text in votes.texts])
    longer = length[votes.pairs[:, 0]] > length[votes.pairs[:, 1]]
    equal = length[votes.pairs[:, 0]] == length[votes.pairs[:, 1]]
    agrees = (votes.choice == longer)[~equal]
    shares = [agrees[(votes.user_ids == name)[~equal]].mean() for name in np.unique(votes.user_ids)]
    assert 0.45 < min(shares) < 0.55
    assert 0.80 < max(shares) < 0.88


def test_every_data_set_has_a_sentence_with_its_licence_and_a_notice():
    for name, sentence in shipped_datasets().items():
        assert re.search(r"Licence: \S+", sentence)
        assert "Licence" in shipped.notice(name)


def test_unknown_names_and_impossible_minima_are_refused():
    with pytest.raises(InputError, match="unknown data set 'ukp'"):
        load_shipped("ukp")
    with pytest.raises(
        InputError, match=r"no user has 9999 strict pairs \(the largest count is 3339\)"
    ):
        load_shipped(min_votes=9999)
