from __future__ import annotations

import sketchbridge_server


def test_every_public_name_is_there_and_none_is_forgotten() -> None:
    assert sketchbridge_server.__all__ == sorted(set(sketchbridge_server.__all__))
    public = {
        name
        for name, value in vars(sketchbridge_server).items()
        if getattr(value, "__module__", "").startswith("sketchbridge_server.") and not name.startswith("_")
    }
    assert public == set(sketchbridge_server.__all__)
