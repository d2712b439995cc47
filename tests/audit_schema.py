"""docs/audit.schema.json, rows from the SCHEMAs of the stages: python -m tests.audit_schema > docs/audit.schema.json"""

import json
from typing import Any

import pyarrow as pa

from tasks import _comparisons, duplicates, findings, report, summary

TEXT, COUNT, NUMBER, FLAG = "string", "integer", "number", "boolean"


def value(kind: str | list[str], description: str, **more: Any) -> dict[str, Any]:
    return {"type": kind, "description": description, **more}


def count(description: str) -> dict[str, Any]:
    return value(COUNT, description, minimum=0)


def share(description: str, *, nullable: bool = False) -> dict[str, Any]:
    return value([NUMBER, "null"] if nullable else NUMBER, description, minimum=0, maximum=1)


def whole(description: str, properties: dict[str, Any], *, nullable: bool = False) -> dict[str, Any]:
    """An object with exactly these properties."""
    return value(["object", "null"] if nullable else "object", description, properties=properties, required=sorted(properties), additionalProperties=False)


def rows(description: str, item: dict[str, Any]) -> dict[str, Any]:
    return value("array", description, items=item)


def row_of(table: pa.Schema, description: str, more: dict[str, Any] | None = None) -> dict[str, Any]:
    """A row of a table: its columns with their comments, and what stands beside them."""
    return whole(description, {field.name: of_column(field) for field in table} | (more or {}))


def of_column(field: pa.Field) -> dict[str, Any]:
    kind = FLAG if pa.types.is_boolean(field.type) else COUNT if pa.types.is_integer(field.type) else NUMBER if pa.types.is_floating(field.type) else TEXT
    return value([kind, "null"] if field.nullable else kind, field.metadata[b"comment"].decode())


PLACE = {
    "caption": value(TEXT, "Text given to the model"),
    "caption_key": value([TEXT, "null"], "Name of the image whose caption it is; null for a custom prompt"),
    "caption_copies": value([COUNT, "null"], "Copies of that image in the training set; null for a custom prompt"),
    "image_key": value([TEXT, "null"], "Name of the training image in its set; null where images does not have it"),
    "image_sha256": value([TEXT, "null"], "Digest of its file's bytes"),
    "image_shard": value([TEXT, "null"], "File that holds it, relative to the root of the set"),
    "image_position": value([COUNT, "null"], "Row of the image in that file"),
    "image_url": value([TEXT, "null"], "Address in the source, as it stands there: never to be followed unseen"),
}
TOTAL = {
    "arm": value(TEXT, "Arm that was drawn at random, or a census"),
    "n_clusters": value([COUNT, "null"], "Clusters of its frame"),
    "estimate": value(NUMBER, "Extractable clusters among them"),
    "low": count("Lower end of the 95 % interval, exact hypergeometric"),
    "high": count("Upper end of the 95 % interval"),
}
CONTROLS = {
    "n": count("Control prompts that judge: those that set thresholds are left out"),
    "n_sampled": count("Of these, prompts of which pictures were generated"),
    "n_flagged": count("Of these, matched to a held-out image: false alarms"),
    "n_true_extractions": count("Of these, captions that returned a training image"),
}
SCREEN = {
    "n_dropped": count("Target prompts that the screen dropped"), "n_sampled": count("Of these, sampled all the same, at random"),
    "n_findings": count("Of these, prompts that return a training image"), "most_findings": count("Findings among all that it dropped, at most, at 95 %"),
    "share_high": share("Share of all findings of the targets that lay below its cut, at most"),
}
CHANCE = {"estimate": share("Decoy estimate"), "upper": share("Its 95 % upper bound")}
LIMITS = {
    "n_matched_controls": count("Controls that a p-value was taken among, at most"),
    "smallest_p": share("The smallest p-value these can give; null without controls", nullable=True),
    "n_controls_needed": value([COUNT, "null"], "Unflagged controls with which the bound of the false share would be 5 %; null for an empty list"),
    "fdr_if_chance": whole("False share of the list, if the control captions that returned a training image did so by chance; null where none did",
                           CHANCE, nullable=True),
}
FURTHER = {
    "n_prompts": count("Further captions of the targets' images"), "n_findings": count("Images that came back by these alone"),
    "n_controls": count("Further captions of controls"), "n_flagged": count("Of these, false alarms"),
}
SAID = {
    "reviewer": value(TEXT, "Who labelled"), "n_pairs": count("Labels of pairs that the audit calls copies"), "n_copies": count("Of these, called copies"),
    "n_decoys": count("Labels of the others: decoys"), "n_decoys_called": count("Of these, called copies"),
    "n_person": count("Labels that mark a recognisable person"), "n_trademark": count("Labels that mark a trademark"),
    "kappa": value([NUMBER, "null"], "Cohen's kappa between labels and verdicts; null where one answer was given throughout"),
    "kappa_low": value([NUMBER, "null"], "Lower end of its 95 % interval"), "kappa_high": value([NUMBER, "null"], "Upper end of its 95 % interval"),
}
REVIEWS = {
    "n": count("Labels of this audit"), "n_pairs": count("Pairs that were labelled"),
    "curve": rows("Share of these that people call copies, closest first, the list cut after each; with its 95 % interval",
                  rows("Share, lower and upper end", share("A share"))),
    "reviewers": rows("What each reviewer said", whole("A reviewer", SAID)),
}
PROPERTIES = {
    "schema_version": value(COUNT, "Version of this schema: another one where a field goes or changes its meaning", const=report.SCHEMA_VERSION),
    "release": value(TEXT, "Release under audit"),
    "verdict": value(TEXT, "The audit in one sentence"),
    "is_compared": value(FLAG, "Whether there were training pictures to compare with: without, nothing is confirmed nor ruled out"),
    "model_digest": value(TEXT, "Digest over the paths and digests of all files of the release", pattern="^[0-9a-f]+$"),
    "protocol_digest": value(TEXT, "Digest of model, prompts, settings, thresholds and stack, fixed before looking", pattern="^[0-9a-f]+$"),
    "stack": value(TEXT, "Versions, device and dtype that made the pictures"),
    "settings": value("object", "Settings that the audit was bound to, by block"),
    "sampler": value("object", "How params.yaml says people sample this release"),
    "packages": value("object", "Versions of the packages a result depends on", additionalProperties={"type": TEXT}),
    "descriptor": value([TEXT, "null"], "Descriptor that proposed the pairs: name, digest, preprocessing"),
    "compared_at_px": count("Side to which both pictures of every comparison are brought first"),
    "model_bytes": value([COUNT, "null"], "Size of the release's files"),
    "code_bytes": count("Coded size of the thumbnails of all copies, each cluster once"),
    "arms": rows("Rates with intervals, by arm and bin of copies; copies_bin all is the whole arm", row_of(summary.SCHEMA, "A row of the table summary")),
    "findings": rows("What came back, the closest first. Ids have 63 bits: read them as whole numbers, not as doubles",
                     row_of(findings.SCHEMA, "A row of the table findings, with its caption and the place of its training image", PLACE)),
    "canaries": rows("How well known copies were found", row_of(duplicates.CANARIES, "A row of the table canaries")),
    "controls": whole("What the controls did", CONTROLS),
    "checks": whole("Checks of the tables", {"n": count("Checks"), "n_failed": count("Of these, failed")}),
    "totals": whole("What was spent", {"prompts": count("Prompts"), "screened_out": count("Of these, not sampled"),
                                       "generations": count("Pictures drawn"), "evaluations": count("Denoiser evaluations")}),
    "denominators": whole("What the counts can be set against", {"pictures_generated": count("Pictures drawn"), "prompts": count("Prompts"),
                                                                 "training_images": count("Training images of this release")}),
    "estimated_totals": rows("Extractable images in all, by arm", whole("An arm", TOTAL)),
    "screen": whole("What the screen may have cost; null where nothing was screened or compared", SCREEN, nullable=True),
    "comparisons": rows("How it compares with the other release and with its base, by arm", row_of(_comparisons.SCHEMA, "A row of the table comparisons")),
    "reviews": whole("What people said of its pairs and decoys; null where nobody has", REVIEWS, nullable=True),
    "further_captions": whole("What further captions of the same images brought", FURTHER),
    "limits": whole("What these controls cannot resolve", LIMITS),
}


def page() -> str:
    """docs/audit.schema.json."""
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema", "title": f"audit.json of Eidetic, version {report.SCHEMA_VERSION}",
        "description": "The audit of a release as reports/<release>/audit.json has it. A reader ignores fields at the top level that it does not know: "
                       "they may be added within a version.",
        "type": "object", "properties": PROPERTIES, "required": sorted(PROPERTIES)}
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    print(page(), end="")
