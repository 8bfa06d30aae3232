"""
The compiled build. All else about the package stands in setup.cfg, and without SIPDMQ_COMPILE=1 in the environment
nothing is added to it: sipdmq is Python, and runs as it is.

With it, mypyc makes C of the modules below, from their annotations, and the wheel is one for this Python and machine.
It needs a C compiler, Python's headers, and what the extra "compile" names; pip fetches that by itself.
"""

import configparser
import os
import shlex
import shutil
import sys
import sysconfig
from pathlib import Path
from typing import Any

from setuptools import setup

# What runs for every message. Left out, because nothing is gained: what runs once (config, node, tap, interfaces) or
# seldom (resolving, binding); the protocols, whose base classes are Twisted's; and what operators derive from or what
# runs their coroutines (policy, functions, dispatch); and what others derive from (errors). A class in here says what
# it provides by classImplements() below it: one with a decorator is compiled, but stays an ordinary class, no faster.
COMPILED = (
    "sipdmq/records.py",
    "sipdmq/sip/*.py",
    "sipdmq/core/domains.py",
    "sipdmq/core/nonces.py",
    "sipdmq/core/refuse.py",
    "sipdmq/core/cookies.py",
    "sipdmq/core/contacts.py",
    "sipdmq/core/expiry.py",
    "sipdmq/core/routes.py",
    "sipdmq/dmq/changes.py",
    "sipdmq/dmq/conflict.py",
    "sipdmq/dmq/envelope.py",
    "sipdmq/dmq/kamailio_json.py",
    "sipdmq/dmq/link.py",
    "sipdmq/dmq/merging.py",
    "sipdmq/dmq/order.py",
    "sipdmq/dmq/outbox.py",
    "sipdmq/dmq/pace.py",
    "sipdmq/dmq/sent.py",
    "sipdmq/dmq/usrloc_changes.py",
    "sipdmq/dmq/usrloc_form.py",
    "sipdmq/dmq/usrloc_json.py",
    "sipdmq/dmq/usrloc_records.py",
    "sipdmq/dmq/usrloc_usual.py",
    "sipdmq/dmq/workers.py",
    "sipdmq/proxy/best.py",
    "sipdmq/proxy/forward.py",
    "sipdmq/registrar/*.py",
    "sipdmq/transaction/client.py",
    "sipdmq/transaction/completed.py",
    "sipdmq/transaction/deadlines.py",
    "sipdmq/transaction/keys.py",
    "sipdmq/transaction/layer.py",
    "sipdmq/transaction/server.py",
    "sipdmq/transaction/targeted.py",
    "sipdmq/transport/layer.py",
)


def find_fault() -> str:
    """
    @return: why nothing can be compiled here, or an empty string.
    """
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")[0]
    if shutil.which(compiler) is None:
        return f"there is no C compiler '{compiler}': on Debian and Ubuntu, apt install gcc"
    headers = Path(sysconfig.get_path("include"))
    if not (headers / "Python.h").exists():
        return f"there is no Python.h in {headers}: on Debian and Ubuntu, apt install python3-dev"
    if {"develop", "editable_wheel"} & set(sys.argv):
        return "not for an editable installation: what is compiled would be run instead of what is edited"
    return ""


def compiled_options() -> dict[str, Any]:
    """
    @return: what setup() is told beyond setup.cfg.
    """
    fault = find_fault()
    if fault:
        sys.exit(f"SIPDMQ_COMPILE: {fault}")
    if "egg_info" in sys.argv:
        # pip asks what has to be there before it builds: mypy, and all whose types we use.
        config = configparser.ConfigParser()
        config.read("setup.cfg")
        needed = config["options"]["install_requires"] + config["options.extras_require"]["compile"]
        return {"setup_requires": needed.split("\n")}
    if "bdist_wheel" not in sys.argv:
        return {}
    try:
        from mypyc.build import mypycify
    except ImportError:
        sys.exit("SIPDMQ_COMPILE: there is no mypy in this environment: pip install 'sipdmq[compile]'")
    files = sorted(str(file) for pattern in COMPILED for file in Path().glob(pattern) if file.name != "__init__.py")
    return {"ext_modules": mypycify(["--config-file=setup.cfg", *files], opt_level="3", group_name="sipdmq")}


setup(**(compiled_options() if os.environ.get("SIPDMQ_COMPILE") == "1" else {}))
