# The commands of the kit. `make` alone prints this list; README.md shows the two that most people need.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory --no-builtin-rules
export PIP_DISABLE_PIP_VERSION_CHECK := 1
unexport PYTHONDONTWRITEBYTECODE  # compiling the libraries anew takes every process a quarter of a minute

PROFILE ?= demo
DATA_ROOT ?=
SPLIT ?=
BENCH_SEED ?=
PRETRAIN_SEED ?=
JOBS ?=
VIDEO ?=
VIDEOS ?=
WEIGHTS ?=
WEIGHTS_ROOT ?=
MIRROR ?=
CHECK ?=
SHARD ?=
ALLOW_MISSING ?=
SCORES ?=
LABELS ?=
RUN ?=
CAUSAL ?=
OVERLAY ?=
NORMAL ?=
CAMERAS ?=
SOURCE ?=
DURATION ?=
FAR ?=
AT ?=
CAPTIONS ?=
PROMPTS ?=
SCENE ?=
TRUTH ?=
BACKBONES ?=
WITHOUT ?=
PROMPT_WEIGHT ?=
PREDICT ?=
FPS ?=
OUT ?=
HELD_OUT ?=
GRID ?= all
CLUSTER ?=
LAUNCH ?=
SET ?=
INSTALLER ?=
CPU ?=
UPGRADE ?=
COLD ?=
PYTHONS ?=
TESTS ?=

VENV := .venv
PYTHON := $(VENV)/bin/python
# What people give is text: a $ in it is no variable of make, and a quote ends no word of the shell.
GIVEN := PROFILE DATA_ROOT SPLIT BENCH_SEED PRETRAIN_SEED JOBS VIDEO VIDEOS WEIGHTS WEIGHTS_ROOT MIRROR SHARD ALLOW_MISSING SCORES LABELS RUN \
	NORMAL CAMERAS SOURCE DURATION FAR AT CAPTIONS PROMPTS SCENE TRUTH BACKBONES WITHOUT PROMPT_WEIGHT PREDICT FPS OUT GRID CLUSTER LAUNCH SET INSTALLER CPU PYTHONS TESTS
$(foreach name,$(GIVEN),$(eval override $(name) := $$(value $(name))))
quoted = '$(subst ','\'',$1)'
# A path as one word that is no option; what holds a newline, or a password, reaches the shell through the environment.
export VIDEO VIDEOS WEIGHTS WEIGHTS_ROOT MIRROR SCORES LABELS RUN NORMAL CAMERAS SOURCE DURATION FAR AT CAPTIONS PROMPTS SCENE TRUTH FPS OUT
define NEWLINE


endef
path = $(if $(findstring $(NEWLINE),$($1)),"$$$1",$(if $(filter -%,$(firstword $($1))),./)$(call quoted,$($1)))
# What was given on the command line or in the environment, as KEY=VALUE (values may hold spaces).
SETTINGS = $(foreach name,DATA_ROOT SPLIT ALLOW_MISSING BENCH_SEED PRETRAIN_SEED JOBS,$(if $($(name)),$(call quoted,$(name)=$($(name))))) \
	$(foreach item,$(SET),$(call quoted,$(item)))
ZSAD = $(PYTHON) -m zsad_lib
SEEN_WITH = $(if $(BACKBONES),--backbones $(call quoted,$(BACKBONES))) $(if $(WITHOUT),--without $(call quoted,$(WITHOUT))) \
	$(if $(PROMPT_WEIGHT),--prompt-weight $(call quoted,$(PROMPT_WEIGHT)))
WORDS = $(if $(CAPTIONS),--captions "$$CAPTIONS") $(if $(PROMPTS),--prompts "$$PROMPTS") $(if $(SCENE),--scene="$$SCENE") $(SEEN_WITH)
PROFILED = --profile $(call quoted,$(PROFILE))
STEP = $(ZSAD) step $(PROFILED) $(SETTINGS)
# Tests side by side: whole files, a thread for each worker; more than four workers load the libraries more than they test.
PYTEST = OMP_NUM_THREADS=1 PYTHONWARNDEFAULTENCODING=1 $(PYTHON) -m pytest -n $(or $(JOBS),auto) --maxprocesses 4 --dist loadfile
NBSTRIPOUT = $(VENV)/bin/nbstripout --keep-id --extra-keys 'metadata.papermill cell.metadata.papermill metadata.widgets'

# The order of notebooks is declared here, never inferred from their numbers.
NOTEBOOKS_method := 00_start_here 01_prepare_data 02_pretrain_backbones 10_step_timesformer 11_predict_future \
	12_align_prompts 13_gate_context 20_train_detector 21_score_video 22_evaluate_detection \
	23_find_in_stream
NOTEBOOKS_weak := 40_center_clip_space 41_select_directions 42_attend_along_axes 43_train_from_labels
NOTEBOOKS_video := 50_score_your_video 51_explain_a_score
NOTEBOOKS_demo := $(NOTEBOOKS_method) $(NOTEBOOKS_weak) $(NOTEBOOKS_video) 60_print_tables
NOTEBOOKS_gate := 30_ablate_gate
NOTEBOOKS_components := 31_ablate_components
NOTEBOOKS_released := 32_ablate_released
NOTEBOOKS_prompts := 33_ablate_prompts
NOTEBOOKS_stream := 34_ablate_streams
NOTEBOOKS_anomaly_clip := 44_ablate_anomaly_clip
NOTEBOOKS_zero_shot := $(NOTEBOOKS_gate) $(NOTEBOOKS_components) $(NOTEBOOKS_released) $(NOTEBOOKS_prompts) \
	$(NOTEBOOKS_stream)
NOTEBOOKS_all := $(NOTEBOOKS_zero_shot) $(NOTEBOOKS_anomaly_clip)
NOTEBOOKS_smoke := $(NOTEBOOKS_method) $(NOTEBOOKS_zero_shot) $(NOTEBOOKS_weak) $(NOTEBOOKS_anomaly_clip) $(NOTEBOOKS_video) \
	60_print_tables
NOTEBOOKS_ped2 := 00_start_here 01_prepare_data 11_predict_future 20_train_detector 21_score_video \
	22_evaluate_detection 60_print_tables
NOTEBOOKS_ucf_crime := 20_train_detector 21_score_video 22_evaluate_detection 60_print_tables
NOTEBOOKS_shanghaitech := 60_print_tables
NOTEBOOKS_xd_violence := 60_print_tables
NOTEBOOKS = $(patsubst %,notebooks/%.ipynb,$(NOTEBOOKS_$(PROFILE)))

.PHONY: help env doctor data weights pretrain features train score explain calibrate live evaluate tables figures cost floors reproduce \
	report status lab ablate bench bench-gpu showcase test test-notebooks test-thorough test-browser test-gpu lint strip lock lock-check fresh clean

help:  ## this list
	@echo "make TARGET [PROFILE=demo|smoke|ped2|ucf_crime|...] [DATA_ROOT=folder] [SPLIT=name] [BENCH_SEED=n] [PRETRAIN_SEED=n] [JOBS=n] [SET='setting=value ...']"
	@grep -hE '^[a-z-]+:.*## ' $(firstword $(MAKEFILE_LIST)) | sed -E 's/:.*## /\t/' | expand -t 18

reproduce: env  ## everything: data, training, scores, tables, figures, report and all notebooks of PROFILE
	@$(ZSAD) run $(PROFILED) $(SETTINGS) $(NOTEBOOKS)
	@$(ZSAD) report $(PROFILED) $(SETTINGS)

test: env  ## the whole test suite with coverage, and every notebook in the smoke profile
	@$(PYTEST) --cov --cov-report=term --doctest-modules tests zsad_lib data_prep
	@$(MAKE) test-notebooks

env: $(VENV)/.ready  ## set-up: .venv with the pinned libraries (no other target needs it called first) [INSTALLER=pip: without uv] [CPU=1: without GPU libraries, 0: with them again]

doctor: env  ## check this machine and say how to mend what is missing
	@$(ZSAD) doctor

data tables figures: env
	@$(STEP) $@
data:  ## check the data set of PROFILE, or say where to get it: [DATA_ROOT=folder] [SPLIT=name] [ALLOW_MISSING=1]
train: env  ## train the detector; on several GPUs: LAUNCH="torchrun --nproc-per-node 2", see docs/gpu.md
	@$(STEP) $(if $(LAUNCH),--launch $(call quoted,$(LAUNCH))) $@
tables:  ## write the tables
figures:  ## draw the figures

weights: env  ## fetch and verify the published weights of PROFILE: [WEIGHTS_ROOT=folder] [MIRROR=address] [CHECK=1: fetch nothing]
	@$(ZSAD) weights $(PROFILED) $(if $(filter-out 0 no,$(CHECK)),--check) \
		$(if $(WEIGHTS_ROOT),--root $(call path,WEIGHTS_ROOT)) $(if $(MIRROR),--mirror "$$MIRROR")

cost: env  ## what PROFILE=ucf_crime, shanghaitech or xd_violence will cost on this device: hours and disk per stage
	@$(ZSAD) cost $(PROFILED) $(SETTINGS)

floors: env  ## what scores without a picture reach on a real data set, from its annotation: PROFILE=ucf_crime DATA_ROOT=folder
	@$(ZSAD) floors $(PROFILED) $(SETTINGS)

features: env  ## the frozen features of PROFILE, once, or a machine's share: [SHARD=0/4]; CLIP features of any videos: VIDEOS=folder [WEIGHTS=openai] [BACKBONES=official]
ifdef VIDEOS
	@$(ZSAD) features $(call path,VIDEOS) $(if $(WEIGHTS),--weights $(call path,WEIGHTS)) $(if $(SHARD),--shard $(call quoted,$(SHARD))) \
		$(if $(JOBS),--jobs $(call quoted,$(JOBS))) $(if $(filter-out 0 no,$(ALLOW_MISSING)),--allow-missing) \
		$(if $(BACKBONES),--backbones $(call quoted,$(BACKBONES)))
else
	@$(STEP) $(if $(SHARD),--shard $(call quoted,$(SHARD))) features $(if $(SHARD),,$(if $(filter demo smoke,$(PROFILE)),frame_features))
endif

pretrain: env  ## pretrain the stand-in backbones again (their weights are in the repository); HELD_OUT=1: without fight, fall, fire; PRETRAIN_SEED=n: another seed, for the runs of that PRETRAIN_SEED
	@$(ZSAD) pretrain $(if $(filter-out 0 no,$(HELD_OUT)),--held-out) $(if $(PRETRAIN_SEED),--seed $(call quoted,$(PRETRAIN_SEED)))

score: env  ## score the test set, or one video: VIDEO=path [RUN=runs/demo] [CAUSAL=1] [OVERLAY=0] [FORMAT=parquet] [TRUTH=labels] [CAPTIONS=file] [PROMPTS=file] [PROMPT_WEIGHT=1] [SCENE='in a corridor'] [FPS=25: of a folder of frames] [BACKBONES=official: published weights] [WITHOUT=dpc]
ifdef VIDEO
	@$(ZSAD) score $(if $(RUN),--run "$$RUN") $(if $(filter-out 0 no,$(CAUSAL)),--causal) \
		$(if $(filter 0 no,$(OVERLAY)),--no-overlay) $(if $(TRUTH),--truth "$$TRUTH") $(WORDS) \
		$(if $(FORMAT),--format $(call quoted,$(FORMAT))) $(if $(FPS),--fps "$$FPS") -- "$$VIDEO"
else
	@$(STEP) score
endif

explain: env  ## the strongest moments of a video in words, where and why, with figures: VIDEO=path [RUN=...] [AT=seconds] [CAPTIONS=file] [PROMPTS=file] [SCENE=...] [FPS=25] [BACKBONES=official]
	@$(ZSAD) explain $(if $(RUN),--run "$$RUN") $(if $(AT),--at "$$AT") $(WORDS) \
		$(if $(FPS),--fps "$$FPS") -- "$$VIDEO"

calibrate: env  ## fit the detector to your camera: NORMAL=folder of normal videos, or CAMERAS=folder of such folders [RUN=...] [FAR=0.05] [CAPTIONS=file] [ALLOW_MISSING=1] [FPS=25] [BACKBONES=official] [PREDICT=train: predictive coding from scratch]; then score with its RUN
	@$(ZSAD) calibrate $(if $(RUN),--run "$$RUN") $(if $(FAR),--far "$$FAR") $(if $(FPS),--fps "$$FPS") \
		$(if $(CAPTIONS),--captions "$$CAPTIONS") $(if $(PROMPTS),--prompts "$$PROMPTS") $(SEEN_WITH) \
		$(if $(PREDICT),--predict $(call quoted,$(PREDICT))) \
		$(if $(filter-out 0 no,$(ALLOW_MISSING)),--allow-missing) \
		$(if $(CAMERAS),--cameras "$$CAMERAS",-- "$$NORMAL")

live: env  ## score while it records, one line per frame: SOURCE=0 (a camera), rtsp://... or a file [RUN=...] [DURATION=60] [CAPTIONS=file] [SCENE=...] [BACKBONES=official]
	@$(ZSAD) live $(if $(RUN),--run "$$RUN") $(if $(DURATION),--seconds "$$DURATION") $(WORDS) -- "$$SOURCE"

evaluate: env  ## evaluate the scores of PROFILE, or anybody's beside the content-free floors: SCORES=folder LABELS=folder [NORMAL=folder of scores of held-out normal videos: sets the threshold] [FPS=25: for alarms per hour and delays] [OUT=folder for the tables]
ifneq ($(SCORES)$(LABELS),)
	@$(ZSAD) evaluate $(if $(OUT),--out $(call path,OUT)) $(if $(NORMAL),--normal $(call path,NORMAL)) $(if $(FPS),--fps "$$FPS") \
		$(call path,SCORES) $(call path,LABELS)
else
	@$(STEP) evaluate
endif

ablate: env  ## ablations: GRID=stream|gate|components|released|prompts|held_out|anomaly_clip|all [CLUSTER=tcp://host:port], and their notebooks
	@$(ZSAD) ablate $(PROFILED) --grid $(call quoted,$(GRID)) $(if $(CLUSTER),--cluster $(call quoted,$(CLUSTER))) $(SETTINGS) \
		$(patsubst %,notebooks/%.ipynb,$(NOTEBOOKS_$(GRID)))

report: env  ## write the report page again from what has been computed
	@$(ZSAD) report $(PROFILED) $(SETTINGS)

status: env  ## what is up to date and what would run
	@$(ZSAD) status $(PROFILED) $(SETTINGS) $(NOTEBOOKS)

bench: env  ## time the kit's ways against the usual ones, as ratios in one run, into docs/results/speed.md (8 minutes)
	@$(ZSAD) bench

bench-gpu: env  ## what training and extraction at published size reach on this GPU, into docs/results/gpu.md (4 minutes)
	@$(ZSAD) bench-gpu

showcase: env  ## show runs/demo and runs/ped2 in README.md and docs: tables, pictures, model card, findings
	@$(ZSAD) showcase

lab: env  ## open the notebooks in JupyterLab
	@$(VENV)/bin/jupyter lab --notebook-dir=. --LabApp.default_url=/lab/tree/notebooks \
		$(if $(filter 0,$(shell id -u)),--allow-root)

# What the notebooks need is computed first: side by side they would wait for each other's run folder.
test-notebooks: env  ## run every notebook in the smoke profile under nbval
	@$(ZSAD) step --profile smoke tables
	@$(ZSAD) ablate --profile smoke --grid stream,gate,components,released,prompts,anomaly_clip > /dev/null
	@$(PYTEST) -p zsad_lib.pipeline.warm_kernels --nbval-lax --nbval-current-env --nbval-cell-timeout=300 notebooks

test-thorough: env  ## further cases of what the tests hold: every container, every limit of memory, every step killed once
	@$(PYTEST) -m thorough tests

test-browser: env  ## an explorer in JupyterLab, moved in a real browser (Chromium or Chrome); its pictures: ZSAD_SCREENSHOTS=folder
	@$(PYTHON) -m pytest -m browser tests

test-gpu: env  ## the tests that need a CUDA device
	@$(PYTHON) -m pytest -m gpu tests

lint: env  ## check style and that notebooks hold no outputs
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(NBSTRIPOUT) --verify notebooks/*.ipynb

strip: env  ## take the outputs out of the notebooks
	@$(NBSTRIPOUT) notebooks/*.ipynb

lock: $(if $(wildcard $(VENV)/bin/uv),,env)  ## pin what pyproject.toml newly needs, all else stays; UPGRADE=1: the newest of everything
	@$(ZSAD) lock $(if $(filter-out 0 no,$(UPGRADE)),--upgrade)

lock-check: env  ## which pins are yanked or gone, and whether today's newest versions pass the smoke profile
	@$(ZSAD) lock-check

fresh:  ## try the committed kit as a newcomer, on every Python of this machine: [COLD=1: empty caches] [PYTHONS='3.11 3.13'] [TESTS=quick|all|none]
	@$(FIND_PYTHON); "$$python" -I zsad_lib/maintenance/fresh.py $(if $(filter-out 0 no,$(COLD)),--cold) \
		$(if $(PYTHONS),--pythons $(call quoted,$(PYTHONS))) $(if $(TESTS),--tests $(call quoted,$(TESTS)))

clean:  ## remove results and caches; keeps data/, cache/weights and .venv
	@rm -rf runs $(filter-out cache/weights,$(wildcard cache/*)) build .pytest_cache .ruff_cache .coverage .coverage.*
	@find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

# --- set-up ----------------------------------------------------------------------------------------------------------
# The stamp holds the content hash of the lock, of pyproject.toml up to its tool settings, and of this folder's path:
# touching a file does nothing; a change, a move, an interrupted set-up or a Python that is gone starts again.

define FIND_PYTHON
python=; for name in python3 python3.13 python3.12 python3.11 python3.14; do \
	if "$$name" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null; then python=$$name; break; fi; \
done; \
if [ -z "$$python" ]; then echo "error: no Python 3.11 to 3.14 found; install one (Debian, Ubuntu: apt install python3 python3-venv)" >&2; exit 1; fi
endef

ENV_MARK := $(or $(shell { cat requirements.lock; sed '/^\[tool.ruff/,$$d' pyproject.toml; pwd; } 2>/dev/null | git hash-object --stdin 2>/dev/null),unknown)
# An environment for CPUs stays one until it is asked for otherwise: its stamp says so.
MADE := $(shell cat $(VENV)/.ready 2>/dev/null)
WANTED := $(ENV_MARK)$(if $(filter 0 no,$(CPU)),,$(if $(filter 1 yes,$(CPU))$(filter cpu,$(MADE)), cpu))
ifneq ($(WANTED),$(shell [ -x $(PYTHON) ] && echo "$(MADE)"))
.PHONY: $(VENV)/.ready
endif

$(VENV)/.ready:
	@$(FIND_PYTHON); "$$python" -I zsad_lib/maintenance/set_up.py --mark "$(WANTED)" $(if $(filter cpu,$(WANTED)),--cpu) \
		$(if $(INSTALLER),--with $(call quoted,$(INSTALLER)))
