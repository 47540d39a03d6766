"""The data step of SceneRules: clips as H.264 files, a manifest with every label, captions in UCA's format, temporal
labels in UCF-Crime's format, and the dataset card."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pandas as pd

from data_prep.scene_rules import world
from data_prep.scene_rules.clips import ClipSpec, clip_list, draw_clip, plan_clip
from zsad_lib.config import Profile
from zsad_lib.files import paths
from zsad_lib.files.annotations import write_captions, write_ucf_annotation
from zsad_lib.files.manifest import frame_labels, save_manifest
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
    write_captions(folder / "captions.txt", caption_table(table[table.set != "long"]))
    write_ucf_annotation(folder / "Temporal_Anomaly_Annotation.txt", table[table.split == "test"])
    card = paths.write_text(folder / "dataset_card.md", dataset_card(table, profile.bench_seed))
    metrics = {"clips": len(table), "frames": int(table.n_frames.sum())}
    metrics["manifest_sha256"] = hashlib.sha256(manifest.read_bytes()).hexdigest()
    metrics |= {f"{split}_{group}": int(n) for (split, group), n in table.groupby(["split", "set"]).size().items()}
    artefacts = {"manifest": manifest, "videos": home / "videos", "card": card}
    return {"metrics": metrics, "artefacts": artefacts, "files": table["path"]}


def _path(home: Path, spec: ClipSpec) -> Path:
    """Profiles share the clips, but the length of the long videos is their own."""
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
                spans=labels_to_spans(clip.labels), caption=clip.caption,
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
    test = table[(table.split == "test") & (table.set == "main")]
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

## Clips

{counts.reset_index().to_markdown(index=False)}

Sets: `main` is what tables report; `night` (darker, noisier), `lookalike` (drawn half and half like another scene) and
`long` (minutes with several events) are rows of their own. Validation sites hold all families, for design choices;
statistics and
thresholds use their normal clips alone. Frames that are abnormal in test, set `main`: {_share(test):.1%}.
"""


def caption_table(table: pd.DataFrame) -> pd.DataFrame:
    """One caption per clip, from its first second to its last (columns of
    `zsad_lib.files.annotations.read_captions`)."""
    return pd.DataFrame(dict(video=table.video, start_s=0.0, end_s=table.n_frames / table.fps, caption=table.caption))


def _share(table: pd.DataFrame) -> float:
    """Share of abnormal frames."""
    return sum(int(frame_labels(row).sum()) for row in table.itertuples()) / table.n_frames.sum()
