"""The data step of SceneRules: clips and streams as H.264 files, a manifest with every label, captions in UCA's format,
temporal labels in UCF-Crime's format, the true number of actors, where the abnormal one is, and the dataset card."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw

from data_prep.scene_rules import streams, world
from data_prep.scene_rules.clips import ClipSpec, clip_list, draw_clip, plan_clip
from data_prep.scene_rules.draw import draw_actor
from data_prep.scene_rules.render import Track, poses
from zsad_lib.config import Profile
from zsad_lib.files import paths
from zsad_lib.files.annotations import write_captions, write_ucf_annotation
from zsad_lib.files.manifest import ACTOR_COUNT, BOXES, frame_labels, save_manifest
from zsad_lib.files.score_files import write_archive
from zsad_lib.files.spans import labels_to_spans
from zsad_lib.files.video import write_video
from zsad_lib.pipeline.fingerprints import closure, digest
from zsad_lib.pipeline.progress import report_progress
from zsad_lib.processes import parallel


def render(specs: list[ClipSpec], profile: Profile) -> Path:
    """Renders the clips that are missing, and returns their folder.

    Clips depend on the renderer's source and the seed alone, so profiles share them, and an interrupted run goes on
    where it was.
    """
    key = f"seed{profile.bench_seed}-{digest(closure(['data_prep.scene_rules.clips']))[:10]}"
    home = paths.make_folder(paths.data() / "scene_rules" / key)
    missing = [spec for spec in specs if not _path(home, spec).exists()]
    chunks = [missing[i : i + 24] for i in range(0, len(missing), 24)]  # clips of one site stay together
    tasks = [(chunk, home, profile.bench_seed) for chunk in chunks]
    for _ in report_progress(parallel(_write, tasks, profile.jobs), "clips rendered", len(missing), 24):
        pass
    return home


def prepare(profile: Profile, folder: Path) -> dict:
    """Pipeline step: the clips, their manifest, captions, temporal labels and dataset card."""
    specs = clip_list(profile)
    home = render(specs, profile)
    table = describe(specs, profile.bench_seed, home)
    manifest = save_manifest(table, folder)
    told = caption_table(specs, profile.bench_seed)
    write_captions(folder / "captions.txt", told)
    if learned := {spec.video for spec in specs if spec.split == "train" and spec.set == "stream"}:
        paths.write_table(folder / "captions.csv", told[told.video.isin(learned)])  # without it, clips are learned from
    tested = [spec for spec in specs if spec.split == "test"]
    counts = {s.video: streams.actor_count(plan_clip(s, profile.bench_seed).tracks, s.frames) for s in tested}
    write_archive(folder / ACTOR_COUNT, counts)
    streamed = [spec for spec in tested if spec.set == "stream"]
    boxes = {s.video: abnormal_boxes(plan_clip(s, profile.bench_seed).tracks, s.frames) for s in streamed}
    write_archive(folder / BOXES, boxes)
    write_ucf_annotation(folder / "Temporal_Anomaly_Annotation.txt", table[table.split == "test"])
    card = paths.write_text(folder / "dataset_card.md", dataset_card(table, profile.bench_seed))
    metrics = {"clips": len(table), "frames": int(table.n_frames.sum())}
    metrics["manifest_sha256"] = hashlib.sha256(manifest.read_bytes()).hexdigest()
    metrics |= {f"{split}_{group}": int(n) for (split, group), n in table.groupby(["split", "set"]).size().items()}
    artefacts = {"manifest": manifest, "videos": home / "videos", "card": card}
    return {"metrics": metrics, "artefacts": artefacts, "files": table["path"]}


def abnormal_boxes(tracks: list[Track], frames: int) -> np.ndarray:
    """Boxes x0, y0, x1, y1 of the actor that is abnormal in each frame, as shares of the picture; NaN where none is:
    [frames, 4]."""
    size = (world.WIDTH, world.HEIGHT)
    boxes, canvas = np.full((frames, 4), np.nan), ImageDraw.Draw(Image.new("RGB", size))
    for track in (track for track in tracks if track.event):
        acting = poses(track, frames)
        for t in range(max(track.event[0], 0), min(track.event[1] + 1, frames)):
            if acting[t] is not None:
                boxes[t] = draw_actor(canvas, *acting[t], np.random.default_rng(track.look))
    return boxes / (*size, *size)


def _path(home: Path, spec: ClipSpec) -> Path:
    """Profiles share the clips, but the length of the streams is their own."""
    return home / ("videos" if spec.frames == world.CLIP_FRAMES else f"videos-{spec.frames}") / f"{spec.video}.mp4"


def _write(specs: list[ClipSpec], home: Path, bench_seed: int) -> None:
    for spec in specs:
        write_video(_path(home, spec), draw_clip(spec, bench_seed), world.FPS)


def describe(specs: list[ClipSpec], bench_seed: int, home: Path) -> pd.DataFrame:
    """The manifest: one row per clip with its labels and caption (columns of `zsad_lib.files.manifest`)."""
    rows = []
    for spec in specs:
        clip = plan_clip(spec, bench_seed)
        rows.append(
            dict(
                video=spec.video, path=str(_path(home, spec)), split=spec.split, set=spec.set, scene=spec.scene,
                site=spec.site,
                family=spec.family, action=clip.action, n_frames=spec.frames, fps=float(world.FPS),
                spans=labels_to_spans(clip.labels), kinds=";".join(clip.kinds),
                caption=clip.told[0].caption if len(clip.told) == 1 else "",
            )
        )  # fmt: skip
    return pd.DataFrame(rows)


def normality_table() -> pd.DataFrame:
    """Scenes x actions, "normal" or "abnormal": the rule that no training label states."""
    word = {True: "normal", False: "abnormal"}
    cells = [[word[world.is_normal(scene, action)] for action in world.ACTIONS] for scene in world.SCENES]
    return pd.DataFrame(cells, index=pd.Index(world.SCENES, name="scene"), columns=world.ACTIONS)


def dataset_card(table: pd.DataFrame, bench_seed: int) -> str:
    """What the benchmark holds, in Markdown, computed from its manifest."""
    counts = table.pivot_table(index=["split", "set"], columns="family", values="video", aggfunc="count", fill_value=0)
    test, streams_ = (table[(table.split == "test") & (table.set == name)] for name in ("main", "stream"))
    kinds = streams_.kinds.str.split(";").explode().value_counts().sort_index().rename_axis("family:kind")
    return f"""# Dataset card: SceneRules (benchmark seed {bench_seed})

Rendered footage of {len(world.SCENES)} scenes seen by fixed cameras, {world.WIDTH} x {world.HEIGHT} pixels,
{world.FPS} frames/s,
clips of {world.CLIP_FRAMES} frames. Everything follows from the seed. Test cameras are never seen in training.
Nobody was filmed; figures are drawn. It measures whether a method learns rules per scene; it says nothing about the
appearance of
real people, crowds, weather or cameras.

## Rules: what is normal where

{normality_table().to_markdown()}

## Families of anomalies (never in training)

- semantic, abnormal everywhere: {", ".join(world.SEMANTIC)};
- temporal, a normal action in broken time: {", ".join(world.TEMPORAL)} (`speed` is {world.SPEED_UP:g} x; `reversal`
  runs back without
  turning round; `teleport` jumps; `freeze` stutters: the actor stands, then is where it would have been);
- contextual, an ordinary action in a scene where it is not normal.

A frame is abnormal when the abnormal actor is visible and at it.

## Videos

{counts.reset_index().to_markdown(index=False)}

Sets: `stream` is what a camera sees and what tables begin with; `main` holds clips of one event each; `night` (darker,
noisier) and `lookalike` (drawn half and half like another scene) have clips and streams too. Validation sites hold all
families, for design choices; statistics and thresholds use their normal video alone. Split `before`: normal streams of
the test cameras, on which a camera calibrates itself. Frames that are abnormal in test, set `main`: {_share(test):.1%},
set `stream`: {_share(streams_):.1%}.

## Streams

Nobody to {streams.MOST_ACTORS} actors at a time, in traffic whose density changes every {streams.DENSITY_FRAMES}
frames; per {streams.EVENTS_PER:,} frames two events of each family, at any time. An event's actor takes the place of an
ordinary one and comes and goes like it, so the number of actors hardly tells: it is a floor, `actor_count`. Captions
are time-stamped segments with a clause per actor. Events in the test streams, by kind:

{kinds.to_frame("events").to_markdown()}
"""


def caption_table(specs: list[ClipSpec], bench_seed: int) -> pd.DataFrame:
    """Captions with their seconds, one per clip, several per stream (columns of
    `zsad_lib.files.annotations.read_captions`)."""
    rows = [
        (spec.video, segment.first / world.FPS, segment.stop / world.FPS, segment.caption)
        for spec in specs
        for segment in plan_clip(spec, bench_seed).told
    ]
    return pd.DataFrame(rows, columns=["video", "start_s", "end_s", "caption"])


def _share(table: pd.DataFrame) -> float:
    """Share of abnormal frames; 0 without any video."""
    return sum(int(frame_labels(row).sum()) for row in table.itertuples()) / max(1, table.n_frames.sum())
