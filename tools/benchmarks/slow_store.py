"""An S3-compatible server on loopback that takes its time for every request.

    python tools/benchmarks/slow_store.py SECONDS

It makes a bucket, prints as one line of JSON the environment in which `s3://` is this server, and
serves until it is ended.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from typing import Any

import boto3
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

BUCKET = "simulated"


def serve(seconds: float) -> None:
    """Serve until this process is ended."""
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # a line per request
    served = DomainDispatcherApplication(create_backend_app)
    pause = 0.0

    def slow(environment: dict[str, Any], start: Any) -> Any:
        time.sleep(pause)
        return served(environment, start)

    server = make_server("127.0.0.1", 0, slow, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    account = {"aws_access_key_id": "someone", "aws_secret_access_key": "unused"}
    s3 = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", **account)
    s3.create_bucket(Bucket=BUCKET)
    pause = seconds
    environment = {
        "AWS_ENDPOINT_URL": endpoint, "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true", "no_proxy": "127.0.0.1",
        **{name.upper(): value for name, value in account.items()},
    }  # fmt: skip
    print(json.dumps(environment), flush=True)
    thread.join()


if __name__ == "__main__":
    serve(float(sys.argv[1]))
