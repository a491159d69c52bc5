"""Labels within a domain that can be read with certainty from where a photo came from.

flowers  the species, from the folder at the source
birds    the group, by rule from the species' English name; a name that doesn't say it stays unlabelled
cats, faces, shoes  none. Of people nothing is classified, on purpose. Of the shoes no list of kinds is at hand.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType

_FLOWERS = frozenset({"daisy", "dandelion", "roses", "sunflowers", "tulips"})

_BIRD_GROUPS: tuple[tuple[str, str], ...] = (  # the first that matches wins: a turkey vulture is a bird of prey
    (
        "bird of prey",
        "OWL|EAGLE|HAWK|FALCON|GYRFALCON|VULTURE|CONDOR|KESTREL|OSPREY|CARACARA|BAZA|GOSHAWK",
    ),
    (
        "waterfowl",
        "DUCK|GOOSE|SWAN|TEAL|MERGANSER|WIGEON|EIDER|SCOTER|SHELDUCK|BUFFLEHEAD|GOLDENEYE|CANVASBACK|SHOVELER",
    ),
    (
        "parrot",
        "PARROT|MACAW|PARAKEET|COCKATOO|COCKATO|LORY|LORIKEET|ROSELLA|LOVEBIRD|CAIQUE|KAKAPO|BLUEBONNET",
    ),
    (
        "game bird",
        "PHEASANT|PARTRIDGE|QUAIL|GROUSE|TURKEY|PTARMIGAN|GUAN|GUINEAFOWL|CHICKEN|TRAGOPAN|PEACOCK|MONAL|FRANCOLIN|"
        "BOBWHITE|CURASSOW|FIREBACK|GREAT ARGUS",
    ),
    (
        "wader",
        "HERON|EGRET|STORK(?! BILLED)|IBIS|SPOONBILL|CRANE|FLAMINGO|BITTERN|SHOEBILL|JABIRU|ADJUTANT|PLOVER|AVOCET|"
        "STILT|GODWIT|SANDPIPER|SNIPE|DUNLIN|RED KNOT|LAPWING|WHIMBREL|KILLDEAR|OYSTER CATCHER|DOTTEREL|IBISBILL|"
        "COURSER",
    ),
    (
        "seabird",
        "GULL|TERN|ALBATROSS|BOOBY|GANNET|PUFFIN|AUKLET|LITTLE AUK|CORMORANT|CORMARANT|FRIGATE|PETREL|FULMAR|SKIMMER|"
        "JAEGER|TROPICBIRD|RAZORBILL|NOODY",
    ),
    (
        "songbird",
        "SPARROW|FINCH|GOLDFINCH|BULLFINCH|WARBLER|BUNTING|TANAGER|GROSBEAK|ORIOLE|WREN|SWALLOW|HOUSE MARTIN|"
        "PURPLE MARTIN|SAND MARTIN|BLACKBIRD|BLUEBIRD|STARLING|JAY|MAGPIE|THRUSH|TIT|CHICKADEE|FLYCATCHER|MOCKINGBIRD|"
        "MYNA|PIPIT|CARDINAL|SISKIN|BULBUL|REDSTART|PITTA|SUNBIRD",
    ),
)


def flower_species(source_path: str) -> str | None:
    """The species a flower's folder names, None if it names none of the five."""
    folder = source_path.split("/")[-2:-1]
    return folder[0] if folder and folder[0] in _FLOWERS else None


def bird_group(source_path: str) -> str | None:
    """The group of a bird, None if its name doesn't tell.

    source_path: "<folder>/<SPECIES IN CAPITALS>/<file>". Whole words count: a HORNBILL has no HORN. The names are
    those of the source, spelling mistakes included.
    """
    species = source_path.split("/")[-2] if "/" in source_path else ""
    return next((group for group, words in _BIRD_GROUPS if re.search(rf"\b({words})\b", species)), None)


ATTRIBUTES: Mapping[str, Callable[[str], str | None]] = MappingProxyType(
    {"birds": bird_group, "flowers": flower_species}
)
"""By domain: what reads the label of a photo from its source path."""
