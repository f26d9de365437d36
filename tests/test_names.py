import pytest

from uaplib.names import check_name


def test_a_known_name_is_returned():
    assert check_name("model", "b", iter(["a", "b"])) == "b"


def test_an_unknown_name_gets_the_nearest_ones():
    with pytest.raises(ValueError, match=r"model='vgg16' is unknown. Did you mean 'vgg16-mini'.*Known: .*resnet-mini"):
        check_name("model", "vgg16", ["vgg16-mini", "resnet-mini"])


@pytest.mark.parametrize("name", ["zzz", "", None, 3])
def test_a_far_off_name_gets_the_list_alone(name):
    with pytest.raises(ValueError, match="is unknown. Known: a, b"):
        check_name("model", name, ["a", "b"])


def test_where_nothing_is_known_that_is_said():
    with pytest.raises(ValueError, match="variant='x' is unknown. Known: none$"):
        check_name("variant", "x", {})


def test_of_many_names_the_first_are_listed_and_the_others_counted():
    with pytest.raises(ValueError, match="Known: 0, 1, .*, 11, and 8 more$"):
        check_name("model", "zzz", map(str, range(20)))
