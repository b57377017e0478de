"""The error of init code that asks for a value that differs by lane: what it is, and which line it names."""

import functools
import importlib
import operator
import pickle
import random
import sys
import traceback

import brainstate
import jax
import numpy as np
import pytest

import shardinit

R = brainstate.random


class Init(brainstate.nn.Module):
    def __init__(self, init):
        super().__init__()
        self.init_state = init


def error_of(init):
    with pytest.raises(shardinit.ConcreteValueError) as caught:
        shardinit.discover(Init(init))
    return caught.value


ASK = {
    "bool": lambda x: bool(x[0] > 0),
    "array": np.asarray,
    "index": lambda x: [1, 2][x[0].astype(int)],
    "operator.index": lambda x: operator.index(x[0].astype(int)),
    "int": lambda x: int(x[0]),
    "float": lambda x: float(x[0]),
    "range": lambda x: range(x[0].astype(int)),
}


@pytest.mark.parametrize("ask", ASK.values(), ids=ASK)
def test_code_that_catches_what_eager_brainstate_raises_goes_on(ask):
    """A fallback in init runs in ours as in brainstate."""
    with pytest.raises(Exception) as caught:  # noqa: PT011
        brainstate.transform.vmap2_new_states(Init(lambda: ask(R.normal(size=(3,)))), {}, axis_size=2)
    assert isinstance(error_of(lambda: ask(R.normal(size=(3,)))), type(caught.value))


def test_it_is_a_type_error_of_jax_that_can_be_printed_pickled_and_made():
    error = error_of(lambda: float(R.normal()))
    assert isinstance(error, (jax.errors.ConcretizationTypeError,))
    assert isinstance(error, (TypeError, shardinit.ShardInitError))
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.args) == (type(error), str(error), error.args)
    assert "differs by lane" in "".join(traceback.format_exception(again))
    assert str(shardinit.ConcreteValueError("why")) == "why"


def named_line(init):
    return str(error_of(init)).partition(" at ")[2].partition(". ")[0]


def test_the_line_of_a_decorated_function_and_of_a_lambda():
    def decorated(function):
        @functools.wraps(function)
        def wrapper(*args):
            return function(*args)

        return wrapper

    @decorated
    @functools.lru_cache
    def asks():
        return float(R.normal())

    assert named_line(asks).endswith("(asks)")
    assert named_line(lambda: float(R.normal())).endswith("(<lambda>)")
    assert __file__ in named_line(asks)
    assert named_line(lambda: random.Random(0).randrange(R.randint(1, 5, size=()))).endswith("(<lambda>)")


@pytest.mark.parametrize("filename", ["<ipython-input-3-8e1f>", "<string>", "<stdin>", "/tmp/ipykernel_7/12.py"])
@pytest.mark.parametrize("names", [{}, {"__name__": "__main__"}])
def test_the_line_of_code_that_is_run_by_exec_or_a_notebook(filename, names):
    source = "import brainstate\n\ndef init():\n    return float(brainstate.random.normal())\n"
    space = dict(names)
    exec(compile(source, filename, "exec"), space)
    assert named_line(space["init"]) == f"{filename}:4 (init)"


@pytest.mark.parametrize(
    "folder", ["lib/python3/site-packages", "shardinit/.venv/lib", "jax/examples"], ids=["installed", "venv", "jax"]
)
def test_the_line_of_a_file_in_a_folder_of_libraries(tmp_path, monkeypatch, folder):
    place = tmp_path / folder
    place.mkdir(parents=True)
    (place / "users_model.py").write_text(
        "def init():\n    import brainstate\n    return int(brainstate.random.normal())\n"
    )
    monkeypatch.syspath_prepend(place)
    monkeypatch.delitem(sys.modules, "users_model", raising=False)
    model = importlib.import_module("users_model")
    assert named_line(model.init) == f"{place / 'users_model.py'}:3 (init)"


def test_the_line_of_a_file_below_jax_itself():
    space = {"__name__": "users_model"}
    filename = f"{jax.__path__[0]}/venv/users_model.py"
    exec(compile("def init(x):\n    return int(x)\n", filename, "exec"), space)
    assert named_line(lambda: space["init"](R.normal())) == f"{filename}:2 (init)"


def test_the_line_of_a_model_library_if_no_users_line_is_in_init():
    space = {"__name__": "brainpy.state"}
    exec(compile("def init(ask=None):\n    return ask() if ask else int(R.normal())", "lif.py", "exec"), space)
    space["R"] = R
    assert named_line(space["init"]) == "lif.py:2 (init)"
    assert __file__ in named_line(lambda: space["init"]())
