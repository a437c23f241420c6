"""The servers that are compared, one file each."""

from __future__ import annotations

from servers.base import Server
from servers.litserve import LitServe
from servers.mlserver import MLServer, MLServerPlain
from servers.penstock import Penstock
from servers.torchserve import TorchServe
from servers.triton import TritonLibtorch, TritonPython

PENSTOCK: Server = Penstock()
# By the name that the command line uses.
PEERS: dict[str, Server] = {
    server.name: server
    for server in (TritonLibtorch(), TritonPython(), MLServer(), MLServerPlain(), TorchServe(), LitServe())
}
