"""Grams of CO2e: by the country's yearly average, whose source and year are said, and never by a guess."""

import pytest

from hxmlops_evidence.errors import BadInput
from hxmlops_stages import carbon
from hxmlops_stages.energy import Joules

EU = "AT BE BG CY CZ DE DK EE ES FI FR GR HR HU IE IT LT LU LV MT NL PL PT RO SE SI SK"
OTHERS = "AE AR AU BR CA CH CL CN EG GB ID IL IN IS JP KE KR MA MX MY NG NO NZ PH SA SG TH TR TW UA US VN ZA"


def test_grams_are_energy_times_the_countrys_average() -> None:
    footprint = carbon.grams(Joules(3.6e6, 1.8e6, 7.2e6), "DE")  # 1 kWh
    assert (footprint.g, footprint.lower, footprint.upper) == pytest.approx((380.9, 190.45, 761.8), rel=1e-3)
    assert footprint.intensity_g_per_kwh == carbon.intensity("DE").g_per_kwh
    assert footprint.source == "Our World in Data / Ember (CC BY 4.0), average of 2023"


def test_the_same_joules_elsewhere_are_other_grams() -> None:
    joules = Joules(1000, 500, 2000)
    assert carbon.grams(joules, "PL").g > 10 * carbon.grams(joules, "NO").g


@pytest.mark.parametrize("code", [*EU.split(), *OTHERS.split()])
def test_countries_are_known_by_their_alpha_2_code(code: str) -> None:
    assert 0 < carbon.intensity(code).g_per_kwh < 1000
    assert 2021 <= carbon.intensity(code).year <= 2026


@pytest.mark.parametrize(
    ("location", "advice"),
    [
        ("UK", "did you mean GB (United Kingdom)?"),
        ("no", "did you mean NO (Norway)?"),
        ("False", "did you mean NO (Norway)?"),  # an unquoted NO in YAML
        ("Germny", "did you mean DE (Germany)?"),
        ("Poland", "did you mean PL (Poland)?"),
        ("4711", "give one such as DE or US"),
        ("", "give one such as DE or US"),
    ],
)
def test_an_unknown_location_is_an_error_with_advice(location: str, advice: str) -> None:
    with pytest.raises(BadInput) as problem:
        carbon.intensity(location)
    assert str(problem.value) == (f"location {location!r}: not a known ISO 3166-1 alpha-2 country code; {advice}")
