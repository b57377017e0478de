"""Where code of the user's runs that a program calls on the host.

A callback can raise, and one device that fails while others wait for it in a collective takes the process down. So a
callback runs where nothing communicates: each device for its own lanes, or one device for all of them.
"""

from shardinit.spec.program import Callback


def runs_on_one_device(calls_back: Callback, *, lanes_split: bool, lanes_shared: bool) -> bool:
    """Whether a piece whose values differ by lane runs on one device, for all lanes.

    Parameters
    ----------
    calls_back
        Whether it calls the host.
    lanes_split
        Whether devices have lanes of their own.
    lanes_shared
        Whether several devices compute the same lane, or lanes that nobody keeps: what has effects must not.
    """
    return calls_back != "no" and (not lanes_split or (calls_back == "effectful" and lanes_shared))
