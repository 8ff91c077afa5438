"""Laws of the text features, against scikit-learn and NumPy."""

from functools import partial

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from simrlhf.core.checks import InputError
from simrlhf.data import load_shipped, text

TEXTS = [
    "The cat sat on the mat, the very mat.",
    "A dog sat on the cat!",
    "Dogs and cats; cats and dogs. It's a dog's life",
    "Über den Wolken, sagt der Hund -- 42 times",
    "",
    "a b c",
]


@pytest.fixture(scope="module")
def arguments():
    return list(load_shipped().texts or ())


@pytest.mark.parametrize("corpus", ["small", "arguments"])
def test_tfidf_equals_scikit_learn(corpus, arguments):
    texts = TEXTS if corpus == "small" else arguments[:300]
    train, new = texts[: len(texts) * 2 // 3], texts[len(texts) * 2 // 3 :]
    reference = TfidfVectorizer(sublinear_tf=True).fit(train)
    fitted = text.fit(train, dimensions=1)
    assert list(fitted.vocabulary) == list(reference.get_feature_names_out())
    np.testing.assert_allclose(fitted.idf, reference.idf_, rtol=1e-13)  # the same formula, rounded
    for part in (train, new):
        mine = text.tfidf(part, vocabulary=fitted.vocabulary, idf=fitted.idf).toarray()
        np.testing.assert_allclose(mine, reference.transform(part).toarray(), atol=1e-13)
    plain = TfidfVectorizer().fit_transform(train).toarray()  # raw counts: another weighting
    mine = text.tfidf(train, vocabulary=fitted.vocabulary, idf=fitted.idf).toarray()
    assert np.abs(mine - plain).max() > 1e-2


def test_components_are_the_leading_right_singular_vectors(arguments):
    fitted = text.fit(arguments[:200], dimensions=5)
    matrix = text.tfidf(arguments[:200], vocabulary=fitted.vocabulary, idf=fitted.idf).toarray()
    rows = np.linalg.svd(matrix, full_matrices=False)[2][:5]
    # ARPACK stops at machine precision relative to the largest value; gaps here are above 1e-3
    np.testing.assert_allclose(np.abs(np.sum(fitted.components * rows, axis=1)), 1.0, atol=1e-9)
    largest = np.abs(fitted.components).argmax(axis=1)
    assert (fitted.components[np.arange(5), largest] > 0).all()


def test_training_features_are_standardised_and_new_ones_use_the_same_scale(arguments):
    fitted = text.fit(arguments[:200], dimensions=8)
    train = text.transform(fitted, arguments[:200])
    assert train.shape == (200, 9)
    np.testing.assert_allclose(train.mean(axis=0), 0.0, atol=1e-12)
    np.testing.assert_allclose(train.std(axis=0), 1.0, atol=1e-12)
    both = text.transform(fitted, arguments[:250])
    np.testing.assert_array_equal(both[:200], train)  # a text's features do not see the others
    assert abs(both[200:].mean(axis=0)).max() > 1e-3


def test_the_last_feature_is_the_logarithm_of_the_number_of_words():
    fitted = text.fit(TEXTS, dimensions=0)
    length = np.log1p([9, 6, 10, 9, 0, 3])
    expected = (length - length.mean()) / length.std()
    np.testing.assert_allclose(text.transform(fitted, TEXTS)[:, 0], expected, atol=1e-14)


def test_the_fit_is_the_same_at_every_call(arguments):
    one, two = (text.fit(arguments[:150], dimensions=6) for _ in range(2))
    np.testing.assert_array_equal(one.components, two.components)


def test_unknown_words_count_for_nothing():
    fitted = text.fit(TEXTS, dimensions=2)
    weigh = partial(text.tfidf, vocabulary=fitted.vocabulary, idf=fitted.idf)
    known, more = weigh(["the cat sat"]).toarray(), weigh(["zyxw the cat sat vuts"]).toarray()
    np.testing.assert_array_equal(known, more)
    assert weigh(["zyxw vuts"]).nnz == 0


def test_dimensions_beyond_the_rank_stay_harmless():
    # four copies of one text and another: rank 2, so that the third direction is rounding
    texts = ["red green blue", "one two three"] * 3
    features = text.transform(text.fit(texts, dimensions=4), texts)
    assert np.abs(features).max() < 3.0


def test_saved_features_are_read_back_exactly(tmp_path):
    fitted = text.fit(TEXTS, dimensions=3)
    again = text.load(text.save(fitted, tmp_path / "features.npz"))
    assert again.vocabulary == fitted.vocabulary
    np.testing.assert_array_equal(text.transform(again, TEXTS), text.transform(fitted, TEXTS))


def test_too_many_dimensions_are_refused_with_the_limit():
    with pytest.raises(InputError, match="dimensions = 6 must be at most 5; there are 6 texts"):
        text.fit(TEXTS, dimensions=6)
    with pytest.raises(InputError, match="no texts"):
        text.fit([])
