"""Every promise, the faults that try it, and the tests that show what happens.

A row is one promise under one mechanism in one stage. A row names tests; it is held if all of
their cases that match `cases` pass. To add a fault, write a test and add a row.
"""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass, replace

GOES_ON = "a stopped run continues, and its results equal those of an undisturbed run"
FOUND = "a damaged object is found, named and never used"
MENDED = "what is damaged is made again, equal to what was lost"
KEPT = "nothing is deleted or taken for absent because it cannot be read"
WHOLE = "a reader or the next run sees a whole object or none"
ALONE = "two drivers never write to one workspace, and a dead one blocks nobody"
WAITED = "a store, a service or a node that fails for a while is waited for"
ONE_LINE = "what a user can correct ends in one line, and nothing half-written stays"
SOUND = "values that cannot be right are not learned from, and not published as data"
DATA = "catalogs and experiments are data: they run no code and reveal no secret"
MLFLOW = "MLflow never stops a run, and has everything in the end"
JOB = "a job does not depend on the client that follows it, and its exit status is reported"

PROMISES = (
    *(GOES_ON, FOUND, MENDED, KEPT, WHOLE, ALONE),
    *(WAITED, ONE_LINE, SOUND, DATA, MLFLOW, JOB),
)

# Stages that are no verb and no stage of `run`.
OTHER_STAGES = ("every stage", "MLflow", "reading maps")


@dataclass(frozen=True)
class Fault:
    """One row of the table.

    Attributes:
      name: For `--only`; unique.
      promise: What must hold.
      stage: Where the fault strikes: a stage, a verb or one of OTHER_STAGES.
      mechanism: What is done. Rows of one promise and one mechanism are one kind of fault.
      tests: Node ids of test functions, without parameters, below `tests/`.
      cases: A regular expression that the parameters of a case must contain; empty for all.
    """

    name: str
    promise: str
    stage: str
    mechanism: str
    tests: tuple[str, ...]
    cases: str = ""

    @property
    def kind(self) -> tuple[str, str]:
        """Promise and mechanism: variants in other stages count once."""
        return self.promise, self.mechanism


def in_stages(stages: dict[str, str], row: Fault) -> list[Fault]:
    """The same fault in several stages: {stage: regular expression of its cases}."""
    return [
        replace(row, name=f"{row.name}-{stage}", stage=stage, cases=cases)
        for stage, cases in stages.items()
    ]


def one(name: str, promise: str, stage: str, mechanism: str, *tests: str, cases: str = "") -> Fault:
    """A row of one stage."""
    return Fault(name, promise, stage, mechanism, tests, cases)


def same(names: str) -> dict[str, str]:
    """Stages whose cases begin with the name of the stage."""
    return {name: rf"^{name}(-|$)" for name in names.split()}


STOPPED = "end_to_end/test_stopped_runs.py::test_a_stopped_verb_goes_on"
CHECKED = "storage/test_checked_before_use.py"
DAMAGE = f"{CHECKED}::test_damage_is_an_error_that_names_the_object_and_what_to_do"
VERIFY = "storage/test_verify.py"
REPAIR = "cli/test_repair.py"
UPDATE = "predict/test_update.py"
UNREADABLE = "storage/test_unreadable.py"
LEASE = "storage/test_lease.py"
TRAINING = "train/test_failing_training.py"
MISSING = "prepare/test_missing.py"
HOSTILE = "catalog/test_hostile_catalogs.py"
GOING_ON = "tracking/test_going_on.py"
TRACKING = "tracking/test_tracking.py"
JOBS = "cluster/test_jobs.py"
TASKS = "cluster/test_ray_tasks.py"
EARLY = "cli/test_ends_early.py"
FILES = "storage/test_files.py"
SMAP = "sources/test_smap.py"

STOPS = [
    *in_stages(
        {
            name: rf"^SIGKILL-{name}$"
            for name in ("planet", "prepare", "folds", "train", "predict", "evaluate", "report")
        },
        one(
            "killed",
            GOES_ON,
            "",
            "SIGKILL of the driver just before the stage is complete",
            STOPPED,
        ),
    ),
    *in_stages(
        {name: rf"^SIGTERM-{name}$" for name in ("planet", "folds", "evaluate", "report")},
        one("terminated", GOES_ON, "", "SIGTERM to the driver while it writes", STOPPED),
    ),
    one(
        *("killed-repair", GOES_ON, "verify", "SIGKILL of the driver while it repairs"),
        "end_to_end/test_stopped_runs.py::test_a_killed_repair_is_done_by_the_next",
    ),
    one(
        *(
            "killed-between-tiles",
            GOES_ON,
            "predict",
            "SIGKILL of driver and workers between tiles",
        ),
        "predict/test_maps.py::test_killed_in_the_middle_predict_finishes_and_maps_are_equal",
    ),
    one(
        *("killed-update", GOES_ON, "update", "the driver dies at any of its writes"),
        f"{UPDATE}::test_killed_anywhere_and_run_again_it_is_the_same",
    ),
    one(
        *("killed-writer", WHOLE, "prepare", "SIGKILL of a process that writes shards"),
        "storage/test_datasink.py::test_a_writer_that_is_killed_leaves_whole_shards_and_one_commit",
    ),
    one(
        *("blocks-left", GOES_ON, "prepare", "some blocks are written, in any order"),
        "prepare/test_prepare.py::test_an_interrupted_run_goes_on_and_keeps_what_was_done",
    ),
    one(
        *("copy-interrupted", GOES_ON, "prepare", "a copy of the sources is interrupted"),
        "prepare/test_copy_sources.py::test_an_interrupted_copy_goes_on",
    ),
    *in_stages(
        {"prepare": "^prepare$", "train": "^train$", "predict": "^predict$", "run": "^start$"},
        one(
            *("interrupted", ONE_LINE, "", "Ctrl-C or SIGTERM while Ray starts or works"),
            "cli/test_interrupts.py::test_an_interrupted_run_leaves_nothing",
        ),
    ),
    one(
        *("worker-and-node-lost", GOES_ON, "train", "SIGKILL of a training worker, then a node"),
        "end_to_end/test_faults.py::test_a_lost_worker_and_a_lost_node_change_no_bit",
    ),
    one(
        *("slow-worker", WAITED, "train", "a training worker is slow"),
        "train/test_groups.py::test_a_slow_worker_holds_nobody_up",
    ),
    one(
        *("task-killed", GOES_ON, "every stage", "SIGKILL of the worker of a Ray task"),
        f"{TASKS}::test_a_task_whose_worker_is_killed_runs_again",
    ),
    one(
        *("node-lost-train", GOES_ON, "train", "a node of a cluster is killed"),
        "cluster/test_cluster.py::test_a_node_lost_while_training_changes_nothing",
    ),
    one(
        *("node-lost-predict", GOES_ON, "predict", "a node of a cluster is killed"),
        "cluster/test_cluster.py::test_a_node_lost_while_predicting_changes_nothing",
    ),
    one(
        *("removal-interrupted", WHOLE, "every stage", "the removal of an artefact is interrupted"),
        "storage/test_workspace.py::test_a_removal_that_is_interrupted_is_never_taken_for_finished_work",
    ),
    one(
        *("receipt-damaged", GOES_ON, "prepare", "the receipt of a finished block is damaged"),
        f"{FILES}::test_a_damaged_receipt_means_that_its_work_is_done_again",
        f"{UNREADABLE}::test_a_block_whose_receipt_is_damaged_is_read_again",
    ),
]

OBJECTS = [
    *(
        one(
            how, FOUND, "verify", f"an object is {how}", f"{VERIFY}::test_damage_is_found_and_named"
        )
        for how in ("flipped", "truncated", "deleted", "exchanged")
    ),
    one(
        *("stale", FOUND, "verify", "an artefact is stale: its inputs or settings have changed"),
        f"{VERIFY}::test_what_was_made_from_another_artefact_is_stale",
        f"{VERIFY}::test_models_that_are_trained_again_otherwise_make_what_follows_stale",
        f"{VERIFY}::test_an_experiment_with_other_settings_makes_artefacts_stale",
        f"{VERIFY}::test_a_begun_record_of_other_inputs_is_stale",
        f"{VERIFY}::test_the_backup_of_another_run_is_stale",
    ),
    one(
        *("unlisted", FOUND, "verify", "an object that no manifest lists"),
        f"{VERIFY}::test_objects_that_no_manifest_records_are_named",
        f"{VERIFY}::test_a_stored_shard_that_should_be_fill_is_named",
    ),
    one(
        *("damaged-in-bucket", FOUND, "verify", "objects of a bucket are damaged"),
        f"{VERIFY}::test_verify_in_a_bucket",
    ),
    *in_stages(
        {
            name: rf"^{name}-.*flip"
            for name in ["prepare", "folds", "train", "predict", "evaluate", "report"]
        },
        one("used-flipped", FOUND, "", "an object is flipped", DAMAGE),
    ),
    *in_stages(
        {name: rf"^{name}-.*truncate" for name in ("prepare", "train", "predict")},
        one("used-truncated", FOUND, "", "an object is truncated", DAMAGE),
    ),
    *in_stages(
        {name: rf"^{name}-.*unlink" for name in ["prepare", "folds", "train", "predict", "report"]},
        one("used-deleted", FOUND, "", "an object is deleted", DAMAGE),
    ),
    one(
        *("undecodable", FOUND, "predict", "a calibration or checkpoint holds other bytes"),
        f"{CHECKED}::test_what_cannot_be_decoded_is_one_line",
        f"{CHECKED}::test_calibrations_and_checkpoints_that_are_missing_are_one_line",
        f"{UNREADABLE}::test_a_damaged_calibration_is_not_an_absent_one",
        f"{UNREADABLE}::test_a_model_that_is_cut_short_is_damaged",
    ),
    one(
        *("chunk-damaged", FOUND, "reading maps", "a chunk is damaged where plain Zarr is read"),
        "storage/test_checksums.py::test_zarr_and_xarray_raise_on_a_damaged_shard",
        "storage/test_checksums.py::test_a_damaged_coordinate_raises",
    ),
    one(
        *("chunk-damaged-train", FOUND, "train", "a chunk is damaged where the cube is read"),
        "storage/test_checksums.py::test_a_damaged_chunk_of_a_cube_is_one_line",
    ),
    one(
        *("plan-damaged", FOUND, "update", "the plan of an update is damaged"),
        f"{UNREADABLE}::test_a_damaged_plan_of_an_update_is_not_an_absent_one",
    ),
    one(
        *("staged-copy-damaged", FOUND, "prepare", "the manifest of a copy of sources is damaged"),
        f"{UNREADABLE}::test_a_copy_whose_manifest_is_damaged_is_told",
    ),
    one(
        *("mended", MENDED, "verify", "objects are flipped, truncated and deleted"),
        f"{REPAIR}::test_repaired_objects_are_those_that_were_lost",
        f"{REPAIR}::test_repaired_maps_are_those_that_were_lost",
    ),
    one(
        *("mended-records", MENDED, "verify", "a manifest and its backup are lost"),
        f"{REPAIR}::test_an_artefact_without_any_manifest_is_made_anew",
    ),
    one(
        *("mended-model", MENDED, "verify", "a model is lost: what follows is made anew with it"),
        f"{REPAIR}::test_a_model_that_is_trained_again_otherwise_makes_what_follows_anew",
    ),
    one(
        *("mended-changed-source", MENDED, "verify", "a shard is lost and its source has changed"),
        f"{REPAIR}::test_a_cube_whose_sources_have_changed_is_not_mended_with_other_values",
    ),
    one(
        *("mended-update", MENDED, "update", "objects are damaged after an update"),
        f"{UPDATE}::test_damage_after_an_update_is_repaired_to_the_last_bit",
    ),
    *in_stages(
        {"planet": "planet", "prepare": "cube", "train": "models", "predict": "maps"},
        one(
            *("record-damaged", KEPT, "", "manifest.json or begun.json is damaged"),
            f"{UNREADABLE}::test_a_damaged_record_is_an_error_and_nothing_is_deleted",
        ),
    ),
    *in_stages(
        {"folds": "folds", "evaluate": "scores", "report": "report"},
        one(
            *("record-damaged", KEPT, "", "manifest.json or begun.json is damaged"),
            f"{UNREADABLE}::test_a_damaged_record_beside_a_file_is_an_error",
        ),
    ),
    *in_stages(
        {"planet": "planet", "prepare": "cube", "train": "models", "predict": "maps"},
        one(
            *("record-gone", KEPT, "", "a folder has objects and no record"),
            f"{UNREADABLE}::test_objects_that_no_record_names_are_not_deleted",
        ),
    ),
    one(
        *("overwrite-outage", KEPT, "every stage", "the store is away when --overwrite is given"),
        f"{UNREADABLE}::test_overwrite_deletes_nothing_while_the_store_does_not_answer",
    ),
    one(
        *("part", WHOLE, "every stage", "objects are read while they are written"),
        f"{FILES}::test_a_reader_never_sees_a_part",
    ),
    one(
        *("failed-write", WHOLE, "every stage", "a write fails half-way"),
        f"{FILES}::test_a_write_that_fails_leaves_the_old_object_and_no_part",
        "storage/test_datasink.py::test_nothing_is_committed_if_a_row_cannot_be_written",
    ),
]

DRIVERS = [
    one(
        *("second-driver", ALONE, "every stage", "a second driver starts"),
        f"{LEASE}::test_a_second_driver_is_told_who_holds_it",
        f"{LEASE}::test_of_many_who_try_one_gets_it",
    ),
    one(
        *("lease-stolen", ALONE, "every stage", "another driver has taken the lease"),
        f"{LEASE}::test_a_lost_lease_commits_nothing",
        f"{LEASE}::test_whoever_loses_it_is_stopped",
    ),
    one(
        *("dead-driver", ALONE, "every stage", "the driver that holds the lease was killed"),
        f"{LEASE}::test_a_killed_driver_of_this_machine_is_replaced_at_once",
        f"{LEASE}::test_a_silent_driver_elsewhere_is_waited_for_then_replaced",
    ),
    one(
        *("pid-again", ALONE, "every stage", "the process id of a dead driver lives again"),
        f"{LEASE}::test_a_dead_drivers_id_that_lives_again_blocks_nobody",
        f"{LEASE}::test_a_container_that_is_restarted_is_not_blocked_by_itself",
    ),
    one(
        *("same-host-name", ALONE, "every stage", "two containers have one host name"),
        f"{LEASE}::test_a_driver_in_a_container_with_this_host_name_is_told_apart",
    ),
    one(
        *("lost-renewal", ALONE, "every stage", "a write of the lease whose answer is lost"),
        f"{LEASE}::test_a_renewal_whose_answer_is_lost_is_ones_own",
        f"{LEASE}::test_the_thread_that_renews_survives_lost_answers",
        f"{LEASE}::test_a_lease_whose_first_answer_is_lost_is_taken_or_given_back",
    ),
    one(
        *("lease-damaged", ALONE, "every stage", "lease.json holds other bytes"),
        f"{LEASE}::test_a_record_that_cannot_be_read_is_one_line_and_becomes_stale",
    ),
    one(
        *("told-to-end", ALONE, "run", "SIGTERM, SIGINT or SIGHUP gives the lease back"),
        f"{EARLY}::test_a_driver_that_is_told_to_end_leaves_no_run_running",
        f"{EARLY}::test_a_driver_that_is_told_to_end_while_it_waits_ends_and_takes_nothing",
    ),
]

OUTAGES = [
    one(
        *("busy-store-prepare", WAITED, "prepare", "S3 answers 503 to every attempt of a task"),
        "end_to_end/test_busy_store.py::test_blocks_are_written_again",
    ),
    one(
        *("busy-store-predict", WAITED, "predict", "S3 answers 503 to every attempt of a task"),
        "end_to_end/test_busy_store.py::test_tiles_are_mapped_again",
    ),
    *in_stages(
        {"run": "^(busy|slow)"},
        one(
            *("bad-store", WAITED, "", "S3 answers 503 to or delays one request in twenty"),
            "end_to_end/test_bad_store.py::test_a_whole_run_in_a_bad_store",
        ),
    ),
    *in_stages(
        {"run": "^(cut|lost)"},
        one(
            *("cut-store", WAITED, "", "S3 cuts answers in the middle, or loses those to writes"),
            "end_to_end/test_bad_store.py::test_a_whole_run_in_a_bad_store",
        ),
    ),
    one(
        *("store-error", WAITED, "every stage", "the connection of a task is reset"),
        f"{TASKS}::test_a_task_whose_store_fails_runs_again_a_stated_number_of_times",
    ),
    one(
        *("outage-of-source", WAITED, "prepare", "a source is away for a while"),
        f"{UNREADABLE}::test_a_passing_outage_is_waited_for",
        "sources/test_awdb.py::test_a_busy_service_is_asked_again_and_a_failed_batch_is_named",
        f"{SMAP}::test_refusals_are_told_and_busy_servers_asked_again",
    ),
    one(
        *("busy-doctor", WAITED, "doctor", "a server is busy for a moment"),
        "doctor/test_doctor.py::test_a_server_that_is_busy_for_a_moment_is_no_fault",
    ),
    one(
        *("no-nodes", WAITED, "prepare", "a cluster has no worker yet"),
        "cluster/test_waiting.py::test_a_cluster_that_scales_from_zero_is_asked_and_waited_for",
    ),
    one(
        *("keys-end", WAITED, "prepare", "the keys of a bucket end during a run"),
        "sources/test_earthdata.py::test_keys_are_renewed_before_they_end",
    ),
]

INPUTS = [
    one(
        *("source-gone", ONE_LINE, "prepare", "a source disappears during the run"),
        f"{UNREADABLE}::test_a_source_that_disappears_during_prepare_leaves_the_finished_blocks",
    ),
    one(
        *("source-html", ONE_LINE, "prepare", "a login page or half a file in place of data"),
        f"{SMAP}::test_a_moved_file_a_login_page_and_half_a_file",
    ),
    one(
        *("source-refuses", ONE_LINE, "doctor", "a server answers 401, 403, 404 or 503"),
        "doctor/test_doctor.py::test_what_a_server_refuses_is_told_without_secrets",
        "sources/test_formats.py::test_a_refusal_tells_no_more_than_is_known",
    ),
    one(
        *("source-trickles", ONE_LINE, "prepare", "a server trickles, or sends without end"),
        "sources/test_hostile_files.py::test_data_that_trickle",
        "sources/test_hostile_files.py::test_data_that_never_end",
        "sources/test_hostile_files.py::test_a_catalog_that_never_ends_or_trickles",
    ),
    one(
        *("source-truncated", ONE_LINE, "prepare", "a file of the sources is truncated or damaged"),
        "sources/test_gridded.py::test_absent_truncated_and_timeless_files_are_refused_by_name",
        "sources/test_gridzarr.py::test_a_damaged_chunk_is_named_when_it_is_read",
        "sources/test_ismn.py::test_damaged_archives_are_named",
        "sources/test_ismn.py::test_a_damaged_member_is_named_when_it_is_read",
        "sources/test_raster.py::test_a_truncated_file_is_named",
        "sources/test_smap_level4.py::test_a_later_step_that_is_damaged_is_named",
        "sources/test_uscrn.py::test_damaged_texts_and_those_of_other_sites",
    ),
    one(
        *("zip-bomb", ONE_LINE, "prepare", "a small file that unpacks to gigabytes"),
        "sources/test_hostile_files.py::test_a_zip_that_unpacks_to_a_thousand_times_its_size_is_not_unpacked",
        "sources/test_hostile_files.py::test_a_small_file_that_declares_giant_arrays",
    ),
    one(
        *("broken-table", ONE_LINE, "score", "a CSV with an open quote, bad lines or no columns"),
        "sources/test_hostile_files.py::test_a_broken_csv_is_one_line",
        "sources/test_table.py::test_every_fault_is_told_at_once_with_its_line",
        "sources/test_table.py::test_files_that_are_no_such_table",
    ),
    one(
        *("sites-twice", ONE_LINE, "prepare", "sites or days are given twice"),
        "prepare/test_prepare.py::test_sites_of_one_id_are_refused",
        "sources/test_gridzarr.py::test_days_shuffled_twice_or_missing",
        "catalog/test_site_records.py::test_a_source_named_twice_is_an_error_that_names_every_site",
    ),
    one(
        *("no-entry", ONE_LINE, "run", "an entry, a file or a model of a later stage is missing"),
        f"{EARLY}::test_what_a_later_stage_would_miss_is_noticed_first",
        f"{EARLY}::test_everything_that_is_missing_is_named_at_once",
    ),
    one(
        *("wrong-models", ONE_LINE, "predict", "models that do not fit"),
        f"{EARLY}::test_predict_with_wrong_models_leaves_no_cube",
        "predict/test_maps.py::test_models_that_do_not_fit_are_refused",
    ),
    one(
        *("regions", ONE_LINE, "folds", "a file of regions that is no GeoJSON"),
        f"{EARLY}::test_regions_that_cannot_be_used_are_noticed_first",
        "experiment/test_regions.py::test_what_is_no_polygon_in_degrees_is_refused",
    ),
    one(
        *("hostile-yaml", ONE_LINE, "run", "alias bombs, long numbers and keys twice in YAML"),
        "experiment/test_hostile_experiments.py::test_experiments_and_recipes",
        f"{HOSTILE}::test_hostile_yaml_is_one_line",
    ),
    one(
        *("no-place", ONE_LINE, "prepare", "the workspace cannot be written"),
        "prepare/test_prepare.py::test_a_workspace_that_cannot_be_written_is_one_clear_line",
        "prepare/test_prepare.py::test_what_cannot_be_written_is_told_and_can_be_gone_on_with",
    ),
    one(
        *("no-place-score", ONE_LINE, "score", "the result cannot be written"),
        f"{EARLY}::test_score_notices_first_that_its_result_cannot_be_written",
    ),
    one(
        *("full-disk", ONE_LINE, "run", "the disk of Ray is full"),
        "cluster/test_connect.py::test_a_full_disk_is_named_only_if_it_is_full",
    ),
    one(
        *("wrong-keys", ONE_LINE, "run", "a bucket that is not there, or wrong keys"),
        "storage/test_buckets.py::test_storage_that_cannot_be_used_is_told_first",
        "storage/test_buckets.py::test_a_node_without_the_keys_is_named_before_anything_is_computed",
    ),
    one(
        *("expired-token", ONE_LINE, "prepare", "a token that has ended"),
        "end_to_end/test_mixed.py::test_an_expired_token_is_told_in_one_line",
    ),
    one(
        *("no-cluster", ONE_LINE, "run", "a head that is away, silent, or of another version"),
        "cluster/test_connect.py::test_a_verb_says_it_in_one_line",
        "cluster/test_connect.py::test_a_port_that_keeps_silent_is_not_waited_for",
        "cluster/test_connect.py::test_another_version_of_ray",
        "cluster/test_connect.py::test_no_token_and_a_wrong_one",
    ),
    one(
        *("update-refused", ONE_LINE, "update", "days that the sources lack or the maps have"),
        f"{UPDATE}::test_errors_name_the_remedy",
    ),
    one(
        *("bug-in-task", ONE_LINE, "every stage", "an error in a task that no repetition mends"),
        f"{TASKS}::test_other_errors_end_the_run_at_once",
    ),
]

VALUES = [
    one(
        *("out-of-range", SOUND, "prepare", "forcing out of range"),
        "prepare/test_prepare.py::test_forcing_out_of_range_is_refused_with_value_and_range_and_no_cube_is_left",
        f"{UNREADABLE}::test_unsound_values_are_refused_and_leave_no_cube",
    ),
    one(
        *("infinite", SOUND, "prepare", "infinite values in the sources"),
        f"{MISSING}::test_infinite_values_on_ten_days_stop_the_run",
        f"{MISSING}::test_infinite_values_of_a_grid_on_ten_days_stop_the_run",
        f"{MISSING}::test_an_infinite_value_is_never_data_and_is_counted",
    ),
    one(
        *("days-missing", SOUND, "prepare", "days or chunks of the sources are missing"),
        f"{MISSING}::test_a_deleted_chunk_stops_the_run_and_names_variable_and_days",
        f"{MISSING}::test_days_without_any_value_stop_the_run",
        f"{MISSING}::test_a_variable_without_any_value_is_named",
    ),
    one(
        *("days-missing-update", SOUND, "update", "days or chunks of the sources are missing"),
        f"{UPDATE}::test_new_days_that_lack_values_are_counted_and_stop_where_they_are_many",
    ),
    one(
        *("broken-sensors", SOUND, "prepare", "sensors with spikes, or stuck at one value"),
        "planet/test_planet.py::test_quality_control_catches_broken_sites",
        "catalog/test_quality_control.py::test_a_run_of_one_value_is_dropped_from_its_full_length_on",
        "catalog/test_quality_control.py::test_a_spike_is_one_step_that_stands_out",
    ),
    one(
        *("nan-loss", SOUND, "train", "a loss, gradient or weight that is not finite"),
        f"{TRAINING}::test_training_stops_at_the_first_loss_that_is_not_finite",
        f"{TRAINING}::test_a_gradient_that_is_not_finite_stops_training",
        f"{TRAINING}::test_weights_that_are_not_finite_stop_training",
    ),
    one(
        *("one-model-fails", SOUND, "train", "one model of several fails"),
        f"{TRAINING}::test_a_model_that_fails_is_not_kept_and_the_others_are",
        f"{TRAINING}::test_a_run_whose_training_fails_names_every_model_and_what_to_do",
    ),
    one(
        *("predicts-nothing", SOUND, "predict", "a model that predicts nothing"),
        f"{TRAINING}::test_maps_flag_what_the_models_did_not_predict",
        f"{TRAINING}::test_every_stored_model_that_predicts_nothing_is_named",
    ),
    one(
        *("does-not-fit", SOUND, "predict", "a value that its stored form cannot hold"),
        "predict/test_maps.py::test_a_value_that_does_not_fit_is_an_error",
    ),
    one(
        *("uncalibrated", SOUND, "evaluate", "sites without a prediction"),
        f"{TRAINING}::test_a_site_without_a_prediction_does_not_decide_the_calibration",
        f"{TRAINING}::test_a_calibration_without_any_error_is_refused",
    ),
    one(
        *("leak", SOUND, "train", "held-out sites hold other values"),
        "end_to_end/test_leaks.py::test_a_checkpoint_is_the_same_to_the_bit_whatever_held_out_sites_say",
    ),
]

ATTACKS = [
    one(
        *("attack-prepare", DATA, "prepare", "a catalog with code, modules or secrets"),
        f"{HOSTILE}::test_an_attack_is_refused_in_one_line_by_prepare_and_by_doctor",
    ),
    one(
        *("attack-http", DATA, "prepare", "such a catalog from a server"),
        f"{HOSTILE}::test_an_attack_by_http_is_refused_and_nothing_is_sent",
        f"{HOSTILE}::test_a_catalog_by_http_reads_no_environment_even_declared",
    ),
    one(
        *("attack-endless", DATA, "prepare", "catalogs that name each other without end"),
        f"{HOSTILE}::test_catalogs_without_end_are_not_followed",
        f"{HOSTILE}::test_an_entry_of_itself_ends",
    ),
    one(
        *("secrets", DATA, "run", "secrets in settings, URLs and errors"),
        "experiment/test_shown_settings.py::test_files_have_no_secrets_and_workers_get_all_of_them",
        "experiment/test_shown_settings.py::test_secrets_are_hidden_in_errors_and_in_what_is_printed",
        f"{EARLY}::test_an_error_is_logged_without_its_secrets",
    ),
    one(
        *("secrets-http", DATA, "prepare", "a server sends a token on to another host"),
        "sources/test_earthdata.py::test_a_token_goes_to_no_other_host",
        "sources/test_earthdata.py::test_a_token_does_not_follow_to_another_host",
    ),
    one(
        *("escaped", DATA, "report", "an experiment with HTML in its texts"),
        "evaluate/test_report.py::test_what_an_experiment_says_is_escaped",
    ),
]

SERVICES = [
    one(
        *("mlflow-dead", MLFLOW, "MLflow", "the server is away, or dies between two calls"),
        f"{GOING_ON}::test_a_server_that_dies_between_gets_the_rest_later",
        f"{TRACKING}::test_a_database_that_is_away_is_not_waited_for",
    ),
    one(
        *("mlflow-silent", MLFLOW, "MLflow", "the server answers late or never"),
        f"{TRACKING}::test_a_server_that_says_nothing_does_not_hold_up_the_run",
        f"{GOING_ON}::test_a_late_server_holds_no_stage_up_and_the_end_only_for_a_while",
        f"{GOING_ON}::test_what_was_not_reached_in_time_is_named_and_the_run_has_its_status",
    ),
    one(
        *("mlflow-refuses", MLFLOW, "MLflow", "the server refuses runs, keys, artifacts or logins"),
        f"{TRACKING}::test_a_server_that_refuses_is_told_and_stops_nothing",
        f"{GOING_ON}::test_artifacts_that_are_refused_keep_nothing_else_back",
        f"{GOING_ON}::test_a_key_that_the_server_does_not_accept_is_left_out_alone",
        f"{TRACKING}::test_a_wrong_login_is_one_line",
    ),
    one(
        *("mlflow-old", MLFLOW, "MLflow", "an older server that lacks functions"),
        f"{GOING_ON}::test_an_older_server_gets_everything_but_the_models",
    ),
    one(
        *("mlflow-killed", MLFLOW, "MLflow", "the driver is killed at any call to the server"),
        f"{TRACKING}::test_killed_at_any_point_everything_arrives_once",
    ),
    one(
        *("mlflow-deleted", MLFLOW, "MLflow", "runs are deleted on the server"),
        f"{TRACKING}::test_what_was_deleted_there_is_logged_anew_when_something_new_comes",
    ),
    one(
        *("job-connection", JOB, "submit", "connections to the cluster are lost"),
        f"{JOBS}::test_lost_connections_cost_no_line_double_none_and_the_status_is_the_jobs",
    ),
    one(
        *("job-client", JOB, "submit", "the client is interrupted, or the job is stopped"),
        f"{JOBS}::test_an_interrupted_client_leaves_the_job_alone_and_a_stopped_job_has_a_status",
    ),
    one(
        *("job-fails", JOB, "submit", "the job fails"),
        f"{JOBS}::test_a_failing_job_gives_its_status_and_its_error",
    ),
    one(
        *("job-refused", ONE_LINE, "submit", "the cluster is away, silent or refuses the job"),
        f"{JOBS}::test_what_the_cluster_refuses_is_one_line",
        f"{JOBS}::test_a_server_that_stays_away_is_given_up",
        f"{JOBS}::test_a_silent_host_is_not_waited_for",
        "cluster/test_dashboards.py::test_another_answer_than_a_dashboards",
    ),
]

FAULTS = [*STOPS, *OBJECTS, *DRIVERS, *OUTAGES, *INPUTS, *VALUES, *ATTACKS, *SERVICES]


def chosen(patterns: list[str]) -> list[Fault]:
    """The rows whose name matches one of the patterns, such as `killed-*`.

    Raises:
      KeyError: If a pattern matches no name.
    """
    for pattern in patterns:
        if not fnmatch.filter([fault.name for fault in FAULTS], pattern):
            raise KeyError(pattern)
    return [f for f in FAULTS if any(fnmatch.fnmatchcase(f.name, p) for p in patterns)]
