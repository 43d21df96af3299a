"""Serve the built book on the loopback address and open it in a browser. Stops with Ctrl-C."""

import argparse
import functools
import http.server
import pathlib
import webbrowser


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("site", type=pathlib.Path, nargs="?", default=pathlib.Path("_build/html"), help="the folder of the built book (default: _build/html)")
    parser.add_argument("--port", type=int, default=0, help="the port to serve on (default: any that is free)")
    parser.add_argument("--no-browser", action="store_true", help="only print the address")
    args = parser.parse_args()
    if not (args.site / "index.html").exists():
        parser.error(f"no book in {args.site}: build it first, with `make book` or `jupyter-book build . --all`")
    handler = functools.partial(QuietHandler, directory=str(args.site))
    try:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", args.port), handler)
    except OSError as error:
        parser.error(f"port {args.port}: {error.strerror}; leave --port out, and a free one is taken")
    with server:
        address = f"http://127.0.0.1:{server.server_port}/"
        print(f"The book is at {address} (Ctrl-C stops)", flush=True)
        if not args.no_browser:
            webbrowser.open(address)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()


if __name__ == "__main__":
    main()
