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
