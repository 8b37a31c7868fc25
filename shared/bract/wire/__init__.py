"""What crosses the network between a site and its hub, apart from Flower's own messages.

`hub.proto` is the contract; `hub_pb2.py` and `hub_pb2.pyi` are generated from it and checked in. To make them anew, in
`shared/`: `python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. bract/wire/hub.proto`.
"""
