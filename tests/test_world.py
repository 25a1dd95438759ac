def test_x(world):
    assert world.summary["n_sites"]
