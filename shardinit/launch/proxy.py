"""Whether a proxy would swallow the connection to the coordinator: gRPC's rules, for JAX connects by gRPC."""

import ipaddress
from collections.abc import Mapping

PROXIES = ("grpc_proxy", "https_proxy", "http_proxy")
EXEMPTIONS = ("no_grpc_proxy", "no_proxy")


def proxy_warning(env: Mapping[str, str], host: str) -> str | None:
    """Warn if gRPC would connect to ``host`` by a proxy; None if it connects directly.

    gRPC takes the first proxy variable that is set, lower case, be it empty (no proxy then), and of those only
    ``http://`` ones; and the first list of exemptions that is set, in which an entry exempts every host that ends
    with it, or is a network such as 10.0.0.0/8 (grpc/src/core/handshaker/http_connect/http_proxy_mapper.cc).
    """
    proxy = next((name for name in PROXIES if name in env), None)
    if proxy is None or not env[proxy].startswith("http://"):
        return None
    exempt = next((name for name in EXEMPTIONS if name in env), "no_proxy")
    listed = env.get(exempt, "")
    if any(_exempts(entry.strip(), host) for entry in listed.split(",") if entry):
        return None
    value = f'"${exempt},{host}"' if listed else host
    return (
        f"{proxy} would swallow the connection to the coordinator at {host}, which {exempt} does not exempt. "
        f"Run `export {exempt}={value}` before, in every process."
    )


def _exempts(entry: str, host: str) -> bool:
    if host.lower().endswith(entry.lower()):
        return True
    try:
        return "/" in entry and ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return False
