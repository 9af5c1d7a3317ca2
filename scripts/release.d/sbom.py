"""The crates that are in the binary, as CycloneDX: from `cargo metadata` on standard input, and Cargo.lock.

cargo-cyclonedx would have to be compiled for each test of a release, names folders of the build machine, and lists what
only the build and the tests need.
"""

import datetime
import json
import os
import sys
import tomllib


def purl(package):
    return f"pkg:cargo/{package['name']}@{package['version']}"


def component(package, kind, checksums):
    found = {"type": kind, "bom-ref": purl(package), "name": package["name"], "version": package["version"]}
    if package["description"]:
        found["description"] = package["description"].strip()
    checksum = checksums.get((package["name"], package["version"]))
    if checksum:
        found["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    if package["license"]:
        # Crates may still have the old form MIT/Apache-2.0.
        found["licenses"] = [{"expression": package["license"].replace("/", " OR ")}]
    found["purl"] = purl(package)
    if package["repository"]:
        found["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
    return found


def is_in_binary(dependency):
    return any(kind["kind"] is None for kind in dependency["dep_kinds"])


def is_macro(package):
    return any("proc-macro" in target["kind"] for target in package["targets"])


def reachable(root, packages, nodes):
    """For each package in the binary, those that it depends on."""
    found, open_ones = {}, [root]
    while open_ones:
        package = open_ones.pop()
        if package not in found:
            used = [dependency["pkg"] for dependency in nodes[package]["deps"] if is_in_binary(dependency)]
            found[package] = [used_one for used_one in used if not is_macro(packages[used_one])]
            open_ones.extend(found[package])
    return found


def bill(metadata, checksums, time):
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    root = metadata["resolve"]["root"]
    graph = reachable(root, packages, nodes)
    order = sorted(graph, key=lambda package: purl(packages[package]))
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.5.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"timestamp": time, "component": component(packages[root], "application", checksums)},
        "components": [component(packages[package], "library", checksums) for package in order if package != root],
        "dependencies": [
            {"ref": purl(packages[package]), "dependsOn": sorted(purl(packages[used]) for used in graph[package])}
            for package in order
        ],
    }


def main():
    with open(sys.argv[1], "rb") as lock:
        locked = tomllib.load(lock)["package"]
    checksums = {(crate["name"], crate["version"]): crate["checksum"] for crate in locked if "checksum" in crate}
    time = datetime.datetime.fromtimestamp(int(os.environ["SOURCE_DATE_EPOCH"]), datetime.timezone.utc)
    json.dump(bill(json.load(sys.stdin), checksums, time.strftime("%Y-%m-%dT%H:%M:%SZ")), sys.stdout, indent=1)
    print()


main()
