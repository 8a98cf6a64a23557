#!/usr/bin/env python3
"""Validates the Kubernetes objects on standard input as Kubernetes would; an unknown field is a mistake.

    kustomize build FOLDER | manifests.py 1.26        every version from 1.26 to the newest that is known here
    manifests.py --schema compose <compose.yaml       documents of another kind, by schemas/compose.json

Kinds that come with an operator are compared with schemas/KIND.json: that part of their definition which deploy/ uses.
The last line says what was good.
"""

import json
import pathlib
import sys

import jsonschema
import kubernetes_validate
import yaml
from kubernetes_validate import utils

SCHEMAS = pathlib.Path(__file__).parent / "schemas"


def own_schema(name, document):
    schema = json.loads((SCHEMAS / f"{name}.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(document)


def kubernetes(version, document):
    try:
        kubernetes_validate.validate(document, version, strict=True)
    except kubernetes_validate.SchemaNotFoundError:
        own_schema(document["kind"].lower(), document)


def number(version):
    return [int(part) for part in version.split(".")]


def main(arguments):
    documents = [document for document in yaml.safe_load_all(sys.stdin) if document]
    if arguments[0] == "--schema":
        checks = {arguments[1]: lambda document: own_schema(arguments[1], document)}
    else:
        versions = sorted({".".join(version.split(".")[:2]) for version in utils.all_versions()}, key=number)
        assert arguments[0] in versions, f"{arguments[0]} is none of {versions}"
        wanted = versions[versions.index(arguments[0]):]
        checks = {version: lambda document, version=version: kubernetes(version, document) for version in wanted}
    for name, check in checks.items():
        for document in documents:
            try:
                check(document)
            except (jsonschema.ValidationError, kubernetes_validate.ValidationError) as error:
                what = f"{document.get('kind', '')} {document.get('metadata', {}).get('name', '')}"
                where = ".".join(str(part) for part in error.path)
                sys.exit(f"{name}: {what}: {where}: {error.message}")
    print(f"{len(documents)} good by {', '.join(checks)}")


if __name__ == "__main__":
    main(sys.argv[1:])
