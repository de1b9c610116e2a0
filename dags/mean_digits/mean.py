"""
The mean image of all digits, each node taking a share of them: data-parallel work in its smallest form.

Node 0 listens at MASTER_ADDR:MASTER_PORT, the others send it their sums. Frameworks do the same behind their backs:
torchrun takes the very same variables as its --nnodes, --node-rank, --nproc-per-node, --master-addr and --master-port.
"""

import argparse
import csv
import json
import os
import socket
import time

PATIENCE_S = 60.0


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--output_dir", required=True)
    parser.add_argument("--log_dir")
    options = parser.parse_args()
    nodes, rank = int(os.environ["NNODES"]), int(os.environ["NODE_RANK"])
    address = (os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
    with open(os.path.join(os.environ["DATA_DIR"], "digits.csv")) as file:
        rows = [[float(value) for value in row[1:65]] for row in list(csv.reader(file))[1:]]
    mine = rows[rank::nodes]
    sums = [sum(column) for column in zip(*mine)]
    print(f"node {rank} of {nodes}: {len(mine)} images", flush=True)
    if rank:
        send(address, {"count": len(mine), "sums": sums})
        return
    count = len(mine)
    for share in receive(address, nodes - 1):
        count += share["count"]
        sums = [one + other for one, other in zip(sums, share["sums"])]
    with open(os.path.join(options.output_dir, "metrics.json"), "w") as file:
        json.dump({"nodes": nodes, "images": count, "mean": [round(value / count, 3) for value in sums]}, file)


def receive(address, count):
    with socket.create_server(address) as server:
        server.settimeout(PATIENCE_S)
        for _ in range(count):
            connection, _ = server.accept()
            with connection, connection.makefile() as file:
                yield json.load(file)


def send(address, share):
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            with socket.create_connection(address, PATIENCE_S) as connection:
                connection.sendall(json.dumps(share).encode())
                return
        except OSError:
            # Node 0 may not be there yet.
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


if __name__ == "__main__":
    main()
