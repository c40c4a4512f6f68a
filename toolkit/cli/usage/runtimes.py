"""Options of the commands that hand bundles to runtimes and serve them."""

from pathlib import Path

from toolkit.cli.arguments import add_address, add_bundle, add_bundles_folder, add_engine, positive
from toolkit.cli.usage.command import Commands, add_command


def _export(commands: Commands) -> None:
    parser = add_command(commands, "export", "write a bundle's network for other runtimes, or what other servers need")
    add_bundle(parser)
    form = parser.add_mutually_exclusive_group(required=True)
    form.add_argument("--onnx", type=Path, metavar="FILE.onnx", help="pixels in, probabilities out")
    others = "files for TensorFlow Serving, KServe and OpenVINO Model Server, with batching as measured; a new folder"
    form.add_argument("--tf-serving", type=Path, metavar="DIR", help=others)
    compared = "compare ONNX Runtime with Keras on these too"
    parser.add_argument("--images", nargs="+", default=[], type=Path, metavar="IMAGE", help=compared)


def _benchmark(commands: Commands) -> None:
    parser = add_command(commands, "benchmark", "time every engine on this machine and recommend one")
    add_bundle(parser)


def _verify(commands: Commands) -> None:
    parser = add_command(commands, "verify", "give the same pictures to every engine and compare the answers")
    add_bundle(parser)
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="picture files, for every engine")


def _serve(commands: Commands) -> None:
    from toolkit.serving.options import QUEUE, WORKER_QUEUE, ServerOptions

    default = ServerOptions()
    what = "answer every bundle over HTTP: TensorFlow Serving's REST, Open Inference v2, and pictures as they are"
    parser = add_command(commands, "serve", what, json=False)
    parser.add_argument(
        "directory", type=Path, metavar="DIR", help="folder of bundles, or one bundle with its versions"
    )
    add_address(parser, port=8501)
    add_engine(parser)
    workers = "processes behind the port, each with all bundles in memory and its share of the processors"
    parser.add_argument("--workers", type=positive, default=default.workers, metavar="N", help=f"{workers} (default 1)")
    queue = (
        "requests of one bundle that are worked on or wait, shared out among the workers; one more is told to come "
        "again, with status 429. Under full load an answer takes N / (answers a second) seconds "
        f"(default {QUEUE}, and at least {WORKER_QUEUE} a worker)"
    )
    parser.add_argument("--max-queue", type=positive, metavar="N", help=queue)
    for option, value, unit, of in (
        ("--max-body-mb", default.max_body_bytes >> 20, "MB", "of a request's body, also once unpacked"),
        ("--max-pictures", default.max_pictures, "N", "pictures in one request"),
        ("--max-megapixels", default.max_pixels // 10**6, "N", "of all pictures of a request together"),
    ):
        help_text = f"{of}; a larger one is refused (default %(default)s)"
        parser.add_argument(option, type=positive, default=value, metavar=unit, help=help_text)
    idle = "a connection without requests is kept so long; longer than a load balancer keeps it (default %(default)s)"
    parser.add_argument("--keep-alive", type=positive, default=default.keep_alive, metavar="SECONDS", help=idle)
    grace = "requests in progress get so long to finish at the end (default %(default)s)"
    parser.add_argument("--grace", type=positive, default=default.grace, metavar="SECONDS", help=grace)
    keys = "ask for a key whose SHA-256 is in this file, one a line, as `printf %%s KEY | sha256sum` writes it"
    parser.add_argument("--api-keys", type=Path, metavar="FILE", help=keys)
    parser.add_argument("--tls-cert", type=Path, metavar="FILE.pem", help="answer HTTPS, with this certificate")
    parser.add_argument("--tls-key", type=Path, metavar="FILE.pem", help="its private key, if it is in another file")
    cors = "let pages of this origin call the server (may be repeated; * for any)"
    parser.add_argument("--cors", action="append", default=[], metavar="ORIGIN", help=cors)
    parser.add_argument("--grpc-port", type=int, metavar="N", help="speak gRPC too, there (TensorFlow Serving's: 8500)")
    parser.add_argument("--access-log", action="store_true", help="log a line for every request")
    parser.add_argument("--log-format", choices=["text", "json"], default="text", help="json: one object a line")


def _demo(commands: Commands) -> None:
    parser = add_command(commands, "demo", "open the web demo", json=False)
    add_bundles_folder(parser)
    add_address(parser, port=None, default="$PORT, or 7860")
    parser.add_argument("--root-path", default="", metavar="/PATH", help="where a reverse proxy puts the page")
    users = "let in only whom a file names, by lines USER:PASSWORD"
    parser.add_argument("--auth", default=None, type=Path, metavar="FILE", help=users)
    parser.add_argument("--mcp", action="store_true", help="offer the page's endpoints as tools of an MCP server too")
    parser.add_argument("--no-teach", dest="teach", action="store_false", help="leave out the tab *Teach*")
    add_engine(parser)


#: In the order of the page of help.
COMMANDS = (_export, _benchmark, _verify, _serve, _demo)
