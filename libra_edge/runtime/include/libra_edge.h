/*
 * libra_edge.h: run a compiled Libra-VLA policy release from C.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * A release is a directory with a manifest, two engines (a slow planner, a fast refiner) and the
 * ONNX Runtime library that runs them. This library opens a release, takes camera images and robot
 * state, and gives one action per control step:
 *
 *     le_open_options options = {0};
 *     options.struct_size = sizeof options;
 *     options.abi_version = LE_ABI_VERSION;
 *     options.release_dir = "/opt/policy/active";
 *     options.threads = 1;
 *     char error[LE_ERROR_SIZE];
 *     le_policy *policy = NULL;
 *     if (le_open(&options, &policy, error, sizeof error) != LE_OK) { ... }
 *     le_policy_info info = {0};
 *     info.struct_size = sizeof info;
 *     le_info(policy, &info); // every size below
 *     le_tokenize(policy, "open the faucet", tokens, info.instruction_length, error, sizeof error);
 *     le_set_instruction(policy, tokens, info.instruction_length, error, sizeof error);
 *     for (;;) {
 *         le_observe(policy, &observation, error, sizeof error);
 *         le_step(policy, action, action_count, &info, error, sizeof error);
 *         ...
 *     }
 *     le_destroy(policy);
 *
 * That is sync mode: le_step runs the engines itself and takes as long as they do. In async mode,
 * between le_start and le_stop, two threads run them and le_tick takes microseconds:
 *
 *     le_run_options run = {0};
 *     run.struct_size = sizeof run;
 *     le_start(policy, &run, error, sizeof error);
 *     for (;;) { // at control_hz
 *         le_observe(policy, &observation, error, sizeof error); // here, or in a camera's thread
 *         le_tick(policy, now_ns, action, action_count, &tick);
 *     }
 *     le_stop(policy);
 *
 * SYMBOLS OF SIZES. They are fixed by the release; le_info tells them.
 *     N bins               intents (macro-directions) per action dimension
 *     H chunk              control steps that one refiner call decides
 *     M chunks_per_plan    chunks that one planner call decides
 *     L plan_steps         = M * H
 *     K denoise_steps      denoising steps inside one refiner call
 *     D action_dim         numbers in an action
 *     P state_dim          numbers in the robot state
 *     V cameras            camera views, each image_height x image_width pixels
 *     T instruction_length tokens in an instruction
 * Arrays are dense, row-major, in native byte order.
 *
 * CAMERAS. `images` holds the V views one after another, in the order of le_camera_name, each as
 * rows from the top, pixels from the left, three bytes RGB, 0 to 255. The engines take exactly
 * image_height x image_width; this library does not resize. Bring a picture to that size as the
 * recordings were that the policy was trained on: the same crop and the same kind of scaling
 * (averaging over areas where it shrinks), without changing colours or brightness. Everything
 * else, normalisation included, is inside the engines.
 *
 * Cameras may differ in size: le_camera_size tells that of each, and image_height and image_width
 * are the largest. The views lie one after another all the same, each in its own size.
 *
 * POLICIES WITHOUT A PLANNER have N = 0, M = 1 and one engine. Each refiner call looks at the
 * newest observation itself and gives R = predicted control steps, of which H are executed; the
 * rest serve to blend successive chunks (le_run_options). `plan` in a name means that observation
 * then: a plan step is its step. Where S = observation_steps is more than 1 the engine looks at the
 * last S control steps: this library keeps them, and where a step had no observation of its own the
 * one before it counts, at the start the first. T = 0 says that there are no instructions, and K =
 * 0 that there is no noise.
 *
 * STATE AND ACTIONS. le_state_dim and le_action_dim tell name and unit of every number, in order.
 * Both are physical values; normalisation is inside the engines. A state may be any finite
 * number. An action dimension is of one kind:
 *     LE_KIND_ABSOLUTE  a value to go to; LE_HOLD keeps the last one
 *     LE_KIND_DELTA     a change per control step; LE_HOLD sends 0
 *     LE_KIND_GRIPPER   as absolute: LE_HOLD keeps what the gripper does
 * and lies within `lower` and `upper`; limits on change, acceleration and jerk bound it from one
 * control step to the next, and none gives way to another: a dimension brakes in time. An engine's
 * action outside of them is clamped, or, with LE_DIM_FAULTS, is a fault. After a hold, at the start
 * and after le_reset an action is approached from rest within these limits, which is no fault: an
 * absolute dimension that a number of the state with its name and unit measures sets out from where
 * it is measured to be, if it was never sent or is more than max_step_change from what was sent.
 *
 * INSTRUCTIONS. le_tokenize turns words into tokens, by the rules of the release's tokenizer.json:
 * words of a vocabulary (WordLevel) or pairs of bytes or characters (BPE), with the normalizers
 * Lowercase, Replace (of a string, or of an open end by a line break) and Prepend, the
 * pre-tokenizers Whitespace, Digits and ByteLevel, and the file's own marks, cut and padding, or
 * `[PAD]` up to T. Any other rule is refused, LE_INCOMPATIBLE, and named. Text that holds a mark
 * (a special token), without any known word, or of more than T tokens where the file does not cut
 * it, is refused: nothing is guessed. A token outside the vocabulary is refused too.
 *
 * TIME. One control step is 1 / control_hz seconds; le_step and le_tick are to be called at that
 * rate. `timestamp_ns` of an observation is the time when it was taken, on a clock of the caller's:
 *     async mode  the clock of le_tick's `now_ns`. An observation is as old as now_ns is away from
 *                 its time stamp, before or after, and no younger than the ticks since it came.
 *     sync mode   handed back only. An observation is as old as the control steps since it came.
 * Past max_observation_age_ns the policy is in LE_HOLD, with LE_REASON_OBSERVATION_TOO_OLD, until
 * the next observation; the actions of the steps meanwhile are dropped, never sent late.
 *
 * TAGS. Every function carries one or more:
 *     [setup]        may allocate, read files, start threads or run an engine; keep it out of a
 *                    real-time thread.
 *     [rt-safe]      bounded time: no allocation, lock, system call or log, unless it fails.
 *     [thread-safe]  may be called from any thread at any time.
 * Without [thread-safe], calls on one policy must not overlap; different policies are independent.
 * One exception: in async mode le_tick, le_observe and le_set_instruction may each be called from
 * a thread of its own. What may be called then, besides: le_info, le_engine, le_camera_name,
 * le_state_dim, le_action_dim, le_tokenize, le_stats, le_set_chunks_per_plan and le_fault_text at
 * any time; le_plan and le_refine beside them all, one at a time; le_reset while none of le_tick,
 * le_observe and le_set_instruction runs; le_stop and le_destroy while nothing runs. le_step and
 * le_start are refused, and so are le_work and le_last_plan unless it began with LE_RUN_MANUAL.
 *
 * ERRORS. Every function that can fail returns an le_status and touches no output unless it
 * returns LE_OK (the error text apart). `error` receives one plain sentence, cut to `error_size`
 * bytes and always NUL-terminated; it may be NULL when `error_size` is 0. On LE_OK it becomes the
 * empty string, except where a function says otherwise. No exception, abort or exit crosses this
 * boundary.
 *
 * OWNERSHIP. The library copies what it is given before it returns and never keeps a caller's
 * pointer. Every output goes to memory that the caller provides. Strings it hands out belong to
 * the policy or to the library.
 *
 * LINKING. Link with lib/liblibra_edge.so of the release, or dlopen it with RTLD_LOCAL; it needs
 * the C library alone. One copy of it opens any number of releases at a time, of its own ABI
 * version; each runs its own ONNX Runtime, which is loaded once for all releases that hold the same
 * bytes of it, from memory, and stays loaded until the process ends.
 *
 * COMPATIBILITY. This interface only grows. Numbers of statuses, states, reasons and flags are
 * never reused. Structs that start with `struct_size` grow at their end: set it to sizeof the
 * struct as you compiled it. Reserved fields, and flags not named here, must be zero.
 */
#ifndef LIBRA_EDGE_H
#define LIBRA_EDGE_H

#include <stdint.h>

#if defined(__GNUC__)
#define LE_API __attribute__((visibility("default")))
#else
#define LE_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Version of the interface in this header; le_open refuses a library of another one. */
#define LE_ABI_VERSION 1u

/* An error buffer of this many bytes holds every message of this library whole. */
#define LE_ERROR_SIZE 512u

/* What a call came to. */
typedef int32_t le_status;
#define LE_OK 0
#define LE_INVALID_ARGUMENT 1    /* a null pointer, a wrong count, a value outside its range */
#define LE_ABI_MISMATCH 2        /* header, library and release speak different ABI versions */
#define LE_IO 3                  /* a file that exists cannot be read */
#define LE_MALFORMED 4           /* the manifest is not JSON, or not a manifest within its bounds */
#define LE_INTEGRITY 5           /* a member is missing, or not the bytes the manifest names */
#define LE_INCOMPATIBLE 6        /* the release is for another schema, policy type or engine kind */
#define LE_ENGINE 7              /* ONNX Runtime refused an engine, or its signature is wrong */
#define LE_NOT_FINITE 8          /* NaN or infinity where a finite number is needed */
#define LE_NO_MEMORY 9           /* memory ran out */
#define LE_INTERNAL 10           /* a bug in this library: please report it */
#define LE_WRONG_ARCHITECTURE 11 /* the release is compiled for another processor architecture */
#define LE_NO_PROVIDER 12        /* the execution provider that an engine needs is not there */
#define LE_UNPROVEN 13           /* parity failed, or random weights: see le_open_options.flags */
#define LE_NO_DRIVER 14          /* the driver of the device that the engines need is not there */
#define LE_DRIVER_TOO_OLD 15     /* it is there, and older than the engines need */
#define LE_NO_DEVICE 16          /* there is no device of the kind that the engines need */
#define LE_SEVERAL_DEVICES 17    /* there is more than one, and nobody said which */
#define LE_WRONG_DEVICE 18       /* the device is not of the kind the engines were compiled for */
#define LE_DEVICE_TOO_SMALL 19   /* the device has less memory than the engines need */
#define LE_ENGINE_MISMATCH 20    /* a compiled engine is not the one that the manifest describes */
#define LE_ENGINE_REFUSED 21     /* the provider says that it cannot run an engine here */

/* What the policy is doing. */
typedef uint32_t le_state;
#define LE_RUNNING 0u /* the action comes from the policy */
#define LE_HOLD 1u    /* the policy cannot act yet; the action holds the robot still */
#define LE_FAULT 2u   /* latched until le_reset; the action holds the robot still */

/* Why the policy holds, or which fault it met. */
typedef uint32_t le_reason;
#define LE_REASON_NONE 0u
#define LE_REASON_NO_OBSERVATION 1u      /* HOLD: nothing observed since open or reset */
#define LE_REASON_NO_INSTRUCTION 2u      /* HOLD: no instruction since open */
#define LE_REASON_STATE_NOT_FINITE 3u    /* FAULT: an observed state held NaN or infinity */
#define LE_REASON_PLANNER_NOT_FINITE 4u  /* FAULT: a margin was NaN or infinity */
#define LE_REASON_REFINER_NOT_FINITE 5u  /* FAULT: an action was NaN or infinity */
#define LE_REASON_PLANNER_FAILED 6u      /* FAULT: ONNX Runtime could not run the planner */
#define LE_REASON_REFINER_FAILED 7u      /* FAULT: ONNX Runtime could not run the refiner */
#define LE_REASON_INTENT_OUT_OF_RANGE 8u /* FAULT: the planner gave an intent outside [0, N) */
#define LE_REASON_OBSERVATION_TOO_OLD 9u /* HOLD: past max_observation_age_ns, or in the future */
#define LE_REASON_ENGINE_TIMEOUT 10u /* HOLD: an engine runs for longer than engine_timeout_ns */
#define LE_REASON_NO_PLAN 11u        /* HOLD: no plan yet, used up, or past max_plan_age_steps */
#define LE_REASON_UNDERRUN 12u       /* HOLD: planned, but the refiner is late */
#define LE_REASON_OUT_OF_LIMITS 13u  /* FAULT: a dimension that says so left its limits */

/* Flags of le_step_info and le_tick_info. */
#define LE_STEP_PLANNER_RAN 1u
#define LE_STEP_REFINER_RAN 2u
#define LE_STEP_CLAMPED 4u    /* the engine's action lay outside the limits and was clamped */
#define LE_STEP_NO_COMMAND 8u /* HOLD or FAULT before any command: see le_step */
#define LE_STEP_SLOWED 16u    /* held back by a limit on change or on its change */

/* An open release. */
typedef struct le_policy le_policy;

/* le_open_options.flags: open a release all the same that ... */
#define LE_OPEN_ALLOW_FAILED 1u         /* failed its parity checks */
#define LE_OPEN_ALLOW_RANDOM_WEIGHTS 2u /* was never trained: it is for measuring alone */

/* What le_open needs. */
typedef struct le_open_options {
  uint32_t struct_size;    /* sizeof(le_open_options) */
  uint32_t abi_version;    /* LE_ABI_VERSION */
  const char *release_dir; /* path of the release directory, NUL-terminated */
  uint64_t seed;           /* seed of the refiner's noise, as in le_reset */
  uint32_t threads;        /* threads of each engine, 1 to 256 */
  uint32_t flags;          /* LE_OPEN_... */
  const char *engines_dir; /* run what le_build_engines put there; NULL: the release\'s own */
  const char *cache_dir;   /* see le_open; NULL: nothing is kept */
  uint64_t reserved[1];    /* 0 */
  uint64_t max_observation_age_ns; /* of sync mode; 0: 500 ms. le_run_options has that of async */
} le_open_options;

/* le_policy_info.flags. */
#define LE_INFO_PARITY_FAILED 1u       /* opened with LE_OPEN_ALLOW_FAILED */
#define LE_INFO_RANDOM_WEIGHTS 2u      /* opened with LE_OPEN_ALLOW_RANDOM_WEIGHTS */
#define LE_INFO_PARITY_NOT_MEASURED 4u /* a check could not be made where it was compiled */

/* What a release is. Strings belong to the policy and live until le_destroy. */
typedef struct le_policy_info {
  uint32_t struct_size;        /* in: sizeof(le_policy_info) */
  uint32_t abi_version;        /* LE_ABI_VERSION of the library */
  uint32_t bins;               /* N */
  uint32_t chunk;              /* H, control steps */
  uint32_t chunks_per_plan;    /* M */
  uint32_t plan_steps;         /* L = M * H, control steps */
  uint32_t denoise_steps;      /* K */
  uint32_t action_dim;         /* D */
  uint32_t state_dim;          /* P */
  uint32_t cameras;            /* V */
  uint32_t image_height;       /* pixels */
  uint32_t image_width;        /* pixels */
  uint32_t instruction_length; /* T, tokens */
  uint32_t threads;            /* threads of each engine */
  double control_hz;           /* control steps per second the policy was trained at */
  const char *name;            /* name of the release */
  const char *target;          /* what it was compiled for */
  const char *recipe;          /* how it was quantised */
  const char *arch;            /* architecture of this library, for example x86_64-linux-gnu */
  const char *onnxruntime_version;
  uint8_t manifest_sha256[32]; /* names the release: SHA-256 of its manifest.json */
  uint32_t predicted;          /* R, control steps: rows of a refiner call's actions */
  uint32_t observation_steps;  /* S: see POLICIES WITHOUT A PLANNER; 0: an older library */
  uint64_t noise_count;        /* numbers of noise that one refiner call takes */
  uint32_t flags;              /* LE_INFO_... */
  uint32_t vocabulary;         /* tokens that there are; 0 from a library that does not tell */
  uint32_t pad_token;          /* fills an instruction up to T */
  uint32_t unknown_token;      /* of words outside the vocabulary; UINT32_MAX: there is none */
} le_policy_info;

/* What a number of the state or of an action is. */
#define LE_KIND_NONE 0u     /* of the state */
#define LE_KIND_ABSOLUTE 1u /* an action's value to go to; LE_HOLD keeps it */
#define LE_KIND_DELTA 2u    /* an action's change per control step; LE_HOLD sends 0 */
#define LE_KIND_GRIPPER 3u  /* a gripper's value; LE_HOLD keeps it */

/* le_dim_info.flags. */
#define LE_DIM_FAULTS 1u /* outside its limits the action is a fault; else it is clamped */

/* One number of the state or of an action. Strings belong to the policy. */
typedef struct le_dim_info {
  uint32_t struct_size;   /* in: sizeof(le_dim_info) */
  uint32_t kind;          /* LE_KIND_... */
  const char *name;       /* for example "gripper" */
  const char *unit;       /* for example "m"; UTF-8 */
  float lower;            /* smallest value; -infinity for a state */
  float upper;            /* largest value; infinity for a state */
  float max_step_change;  /* of an action from one control step to the next; infinity: free */
  float max_acceleration; /* of that change from one control step to the next; infinity: free */
  uint32_t flags;         /* LE_DIM_... */
  uint32_t reserved0;     /* out: 0 */
  uint64_t reserved[3];   /* out: 0 */
  float max_jerk;         /* of that change's change; infinity: free; 0: an older library */
  uint32_t reserved1;     /* out: 0 */
} le_dim_info;

/* The engines of a policy, for le_engine. */
#define LE_PLANNER 0u
#define LE_REFINER 1u

/* le_engine_info.status: what runs. */
#define LE_ENGINE_NONE 0u     /* there is no such engine: the policy has no planner */
#define LE_ENGINE_GRAPH 1u    /* a graph, which the provider compiled when it was opened */
#define LE_ENGINE_COMPILED 2u /* what a compiler made of it where the release was made */
#define LE_ENGINE_BUILT 3u    /* what was made of it on this machine: le_open_options.engines_dir */

/* One engine, and what it runs on. Strings belong to the policy. */
typedef struct le_engine_info {
  uint32_t struct_size; /* in: sizeof(le_engine_info) */
  uint32_t status;      /* LE_ENGINE_... */
  const char *provider; /* ONNX Runtime's name of what runs it; "" where there is no engine */
  const char *device;   /* name of the GPU; "" where it runs on the processor */
  const char *driver;   /* version of the GPU's driver; "" where that is not known */
  uint64_t device_memory_bytes; /* of the GPU, in all; 0 where there is none */
  uint64_t reserved[4];         /* out: 0 */
} le_engine_info;

/* One look at the robot. */
typedef struct le_observation {
  uint32_t struct_size;  /* sizeof(le_observation) */
  uint32_t state_count;  /* numbers in `state`: P */
  const uint8_t *images; /* [V, image_height, image_width, 3], RGB, 0 to 255 */
  uint64_t image_bytes;  /* bytes in `images`: 3 * height * width of all V */
  const float *state;    /* [P], physical units of the embodiment, finite */
  uint64_t timestamp_ns; /* when it was taken: see TIME */
  uint64_t reserved[4];  /* 0 */
} le_observation;

/* What happened in one control step. */
typedef struct le_step_info {
  uint32_t struct_size;              /* in: sizeof(le_step_info) */
  le_state state;                    /* what the action is worth */
  le_reason reason;                  /* why it is not LE_RUNNING */
  uint32_t flags;                    /* LE_STEP_... */
  uint64_t step;                     /* control steps since open or reset, from 0 */
  uint64_t chunk;                    /* RUNNING: number of the chunk the action is from, from 0 */
  int64_t plan_step;                 /* step whose observation the plan is from; -1: no plan */
  int64_t plan_age_steps;            /* step - plan_step; -1: no plan */
  uint64_t observation_timestamp_ns; /* of the newest observation; 0: none */
  uint64_t planner_duration_ns;      /* 0: did not run in this step */
  uint64_t refiner_duration_ns;      /* 0: did not run in this step */
  uint64_t clamped_mask;             /* bit d: dimension d was clamped, for d < 64 */
  uint32_t clamped_count;            /* clamped dimensions, of all D */
  uint32_t reserved0;                /* out: 0 */
  uint64_t reserved[3];              /* out: 0 */
  uint64_t observation_age_ns;       /* control steps since it came, as a time; 0: none, or new */
} le_step_info;

/* How a switch to a new chunk is smoothed: le_run_options.blend. */
#define LE_BLEND_NONE 0u   /* chunks follow each other; the next begins where the last one ends */
#define LE_BLEND_LINEAR 1u /* over their blend_steps common steps, the old fades into the new */
#define LE_BLEND_FREEZE 2u /* linear, but the first frozen_steps of them stay as they were */

/* le_run_options.flags. */
#define LE_RUN_LOCK_MEMORY 1u /* mlockall: no page of this process is swapped out */
#define LE_RUN_MANUAL 2u      /* no threads: the caller runs the engines through le_work */

/* What le_start asked the system for, and what it got: le_tick_info.realtime_asked, _got. */
#define LE_REALTIME_PLANNER_PRIORITY 1u
#define LE_REALTIME_REFINER_PRIORITY 2u
#define LE_REALTIME_PLANNER_CPUS 4u
#define LE_REALTIME_REFINER_CPUS 8u
#define LE_REALTIME_MEMORY 16u

/* How async mode runs. 0 in a field chooses the default in brackets. */
typedef struct le_run_options {
  uint32_t struct_size;        /* sizeof(le_run_options) */
  uint32_t flags;              /* LE_RUN_... */
  uint32_t chunks_per_plan;    /* [M] chunks to use of each plan, at most M */
  uint32_t refill_at;          /* [1] chunks left at which the planner is asked again */
  uint32_t refine_ahead_steps; /* [chosen] actions left at which the next chunk is begun */
  uint32_t max_plan_age_steps; /* [L; without a planner 2 * (H + R)] older actions are not sent */
  uint32_t blend;              /* LE_BLEND_... */
  uint32_t blend_steps;        /* steps that successive chunks share, below H (or R) */
  uint32_t frozen_steps;       /* of them, steps that stay as they were (LE_BLEND_FREEZE) */
  uint32_t planner_priority;   /* 0: of the calling thread; else SCHED_FIFO priority, 1 to 99 */
  uint32_t refiner_priority;   /* 0: of the calling thread; else SCHED_FIFO priority, 1 to 99 */
  uint32_t reserved0;          /* 0 */
  uint64_t planner_cpus;       /* 0: as is; else bit c allows processor c */
  uint64_t refiner_cpus;       /* 0: as is; else bit c allows processor c */
  uint64_t max_observation_age_ns; /* [500 ms] an older observation means LE_HOLD */
  uint64_t engine_timeout_ns;      /* [2 s] a longer engine call means LE_HOLD */
  uint64_t poll_ns;                /* [200 us] how often an idle thread looks for work, up to 1 s */
  uint64_t reserved[4];            /* 0 */
} le_run_options;

/* What happened in one tick. */
typedef struct le_tick_info {
  uint32_t struct_size;              /* in: sizeof(le_tick_info) */
  le_state state;                    /* what the action is worth */
  le_reason reason;                  /* why it is not LE_RUNNING */
  uint32_t flags;                    /* LE_STEP_..., of the action */
  uint64_t step;                     /* ticks since le_start or le_reset, from 0 */
  uint64_t chunk;                    /* RUNNING: number of the chunk the action is from, from 0 */
  int64_t plan_step;                 /* RUNNING: step whose observation the plan is from; else -1 */
  int64_t plan_age_steps;            /* RUNNING: step - plan_step; else -1 */
  uint64_t observation_timestamp_ns; /* of the newest observation; 0: none */
  uint64_t observation_age_ns;       /* its age as far as this library can know; 0: none */
  uint64_t clamped_mask;             /* bit d: dimension d was clamped, for d < 64 */
  uint64_t slowed_mask;              /* bit d: dimension d was held back, for d < 64 */
  uint32_t clamped_count;            /* clamped dimensions, of all D */
  uint32_t queue_steps;              /* steps from the next one to the end of the queue */
  uint32_t realtime_asked;           /* LE_REALTIME_... */
  uint32_t realtime_got;             /* LE_REALTIME_... */
  uint64_t chunks_seen;              /* chunks that the refiner had handed over by now */
  uint64_t reserved[3];              /* out: 0 */
  uint64_t seen_steps;               /* RUNNING: step - step of the observation that the chunk was
                                        made from, plus 1; else, and in older libraries, 0 */
} le_tick_info;

/* Why refine_ahead_steps is what it is: le_stats_info.refine_ahead_reason. 0: an older library. */
#define LE_AHEAD_ASKED 1u               /* le_run_options says so */
#define LE_AHEAD_NOT_MEASURED 2u        /* H, until a refiner call was measured */
#define LE_AHEAD_REFINER 3u             /* the p99 of the refiner's calls */
#define LE_AHEAD_PLANNER 4u             /* that, and more than of those without the planner */
#define LE_AHEAD_SLOWER_THAN_A_CHUNK 5u /* H, although that p99 is more */

/* Numbers since le_start. Quantiles are exact to 6 %. */
typedef struct le_histogram {
  uint64_t count, sum, max;
  uint64_t p50, p90, p99, p999;
  uint64_t octaves[64]; /* values v with 2^(i-1) <= v < 2^i; [0]: zeros; [63]: all larger ones */
} le_histogram;

typedef struct le_stats_info {
  uint32_t struct_size;        /* in: sizeof(le_stats_info) */
  uint32_t reserved0;          /* out: 0 */
  le_histogram tick_ns;        /* time inside le_tick */
  le_histogram planner_ns;     /* planner calls */
  le_histogram refiner_ns;     /* refiner calls */
  le_histogram plan_age_steps; /* of every action sent */
  le_histogram queue_steps;    /* actions left after every tick */
  uint64_t ticks;              /* of them: */
  uint64_t running_ticks;      /* LE_RUNNING */
  uint64_t hold_ticks;         /* LE_HOLD */
  uint64_t fault_ticks;        /* LE_FAULT */
  uint64_t holds;              /* times that LE_RUNNING became LE_HOLD */
  uint64_t faults;             /* times that LE_FAULT began */
  uint64_t underruns;          /* times that LE_REASON_UNDERRUN began */
  uint64_t clamped_ticks;      /* actions with LE_STEP_CLAMPED */
  uint64_t slowed_ticks;       /* actions with LE_STEP_SLOWED */
  uint64_t plans;              /* plans taken */
  uint64_t dropped_plans;      /* plans refused: old, out of order, repeated, or cut off by reset */
  uint64_t chunks;             /* chunks handed over */
  uint64_t dropped_chunks;     /* chunks that came too late for every one of their steps */
  uint64_t hold_reason_ticks[16]; /* LE_HOLD by reason */
  uint64_t reserved[2];           /* out: 0 */
  uint32_t refine_ahead_steps;    /* as it is now: see le_start */
  uint32_t refine_ahead_reason;   /* LE_AHEAD_... */
  uint64_t refiner_p99_steps;     /* control steps that 99 of the last 100 refiner calls took */
} le_stats_info;

/* Pieces of work for le_work. */
#define LE_WORK_PLAN_BEGIN 0u   /* run the planner, if it has something to do */
#define LE_WORK_PLAN_END 1u     /* hand its plan over */
#define LE_WORK_REFINE_BEGIN 2u /* run the refiner, if it has something to do */
#define LE_WORK_REFINE_END 3u   /* hand its chunk over */
#define LE_WORK_PLAN_CLAIM 4u   /* LE_WORK_PLAN_BEGIN in two: take what there is to do ... */
#define LE_WORK_PLAN_RUN 5u     /* ... and run the planner on it */
#define LE_WORK_REFINE_CLAIM 6u /* LE_WORK_REFINE_BEGIN in two: take what there is to do ... */
#define LE_WORK_REFINE_RUN 7u   /* ... and run the refiner on it */

/* LE_ABI_VERSION of the library. [thread-safe] [rt-safe] */
LE_API uint32_t le_abi_version(void);

/* Version of the library, for example "0.1.0"; a static string. [thread-safe] [rt-safe] */
LE_API const char *le_version_string(void);

/* Name of a status, for example "LE_INTEGRITY"; "LE_UNKNOWN" for a number that this library does
 * not have. A static string. [thread-safe] [rt-safe] */
LE_API const char *le_status_name(le_status status);

/*
 * Open a release. [setup] [thread-safe]
 *
 * Reads manifest.json, checks schema, ABI version and architecture, then that the directory holds
 * the files it names and nothing else, no symbolic link and nothing hidden, then the size and
 * SHA-256 of each. Each is read once; lib/libonnxruntime.so, the engines and the tokenizer are used
 * from the very bytes that were hashed. Member names are fixed: no path inside a file is followed.
 *
 * Nobody is phoned: ONNX Runtime's telemetry is off from its first moment. It listens to an
 * environment variable alone, so ORT_DISABLE_TELEMETRY is 1 while its environment is made, and
 * afterwards as before: no other thread may read or write the environment during this call.
 *
 * `cache_dir` names a folder in which a GPU's provider may keep what the driver compiles for this
 * machine, in a folder for each release and engine: the next le_open is quicker. Nothing is written
 * anywhere else, and without it nothing at all.
 *
 * `*policy` receives the policy; the caller ends it with le_destroy. It starts in LE_HOLD.
 *
 * LE_INVALID_ARGUMENT, LE_ABI_MISMATCH, LE_WRONG_ARCHITECTURE, LE_NO_PROVIDER, LE_IO, LE_MALFORMED,
 * LE_INTEGRITY, LE_INCOMPATIBLE, LE_UNPROVEN, LE_ENGINE, LE_NO_MEMORY.
 */
LE_API le_status le_open(const le_open_options *options, le_policy **policy, char *error,
                         uint32_t error_size);

/*
 * Build the engines that a release leaves to the robot, on this machine. [setup] [thread-safe]
 *
 * Reads the release as le_open does. `options->engines_dir` names an empty folder, which receives
 * the engines and usable.json, the mark: the release, the machine, each engine's SHA-256, and that
 * nothing is proven yet. le_open takes such engines with LE_OPEN_ALLOW_FAILED alone, until somebody
 * replayed the golden vectors on them and wrote `"proven": true`; `libra-edge provision` does all
 * of that. Engines for another release or machine, or other bytes, are refused.
 *
 * The statuses of le_open.
 */
LE_API le_status le_build_engines(const le_open_options *options, char *error, uint32_t error_size);

/* Describe an open release. `info->struct_size` must be set. LE_INVALID_ARGUMENT.
 * [thread-safe] [rt-safe] */
LE_API le_status le_info(const le_policy *policy, le_policy_info *info);

/* Describe LE_PLANNER or LE_REFINER. `info->struct_size` must be set. LE_INVALID_ARGUMENT.
 * [thread-safe] [rt-safe] */
LE_API le_status le_engine(const le_policy *policy, uint32_t engine, le_engine_info *info);

/* Name of a camera, from 0 to V - 1, in the order of `images`; NULL for another number, or where
 * `policy` is NULL. The string belongs to the policy. [thread-safe] [rt-safe] */
LE_API const char *le_camera_name(const le_policy *policy, uint32_t camera);

/* Height and width, in pixels, of the views of a camera, from 0 to V - 1.
 * LE_INVALID_ARGUMENT. [thread-safe] [rt-safe] */
LE_API le_status le_camera_size(const le_policy *policy, uint32_t camera, uint32_t *height,
                                uint32_t *width);

/* Describe number `dim` of the state, from 0 to P - 1. `info->struct_size` must be set.
 * LE_INVALID_ARGUMENT. [thread-safe] [rt-safe] */
LE_API le_status le_state_dim(const le_policy *policy, uint32_t dim, le_dim_info *info);

/* Describe number `dim` of an action, from 0 to D - 1. `info->struct_size` must be set.
 * LE_INVALID_ARGUMENT. [thread-safe] [rt-safe] */
LE_API le_status le_action_dim(const le_policy *policy, uint32_t dim, le_dim_info *info);

/*
 * Turn words into tokens, as INSTRUCTIONS above says. [setup] [thread-safe]
 *
 * `text` UTF-8, NUL-terminated; `tokens` [T], padded; `token_count` must be T.
 * LE_INVALID_ARGUMENT: also where no word is known, or there are more than T.
 * LE_INCOMPATIBLE: the release's tokenizer.json has rules that this library does not apply; its
 * tokens have to come from elsewhere.
 */
LE_API le_status le_tokenize(const le_policy *policy, const char *text, int64_t *tokens,
                             uint32_t token_count, char *error, uint32_t error_size);

/*
 * Say what the robot is to do. [rt-safe]
 *
 * `tokens` [T] as le_tokenize gives them, padded; each must be a token of the vocabulary.
 * The next planner call uses them; what is already planned stays. To drop it, call le_reset.
 * LE_INVALID_ARGUMENT.
 */
LE_API le_status le_set_instruction(le_policy *policy, const int64_t *tokens, uint32_t token_count,
                                    char *error, uint32_t error_size);

/*
 * Hand over the newest observation; it replaces the one before. [rt-safe]
 *
 * LE_INVALID_ARGUMENT: a count does not match the release; the policy goes on as it was.
 * LE_NOT_FINITE: NaN or infinity in the state; LE_FAULT is latched.
 */
LE_API le_status le_observe(le_policy *policy, const le_observation *observation, char *error,
                            uint32_t error_size);

/*
 * Do one control step, synchronously. [setup]
 *
 * The actions of a chunk are used up one per step. When none are left, the refiner makes H new
 * ones from the newest observation; when no intents are left for it, the planner runs first. The
 * engines run in this thread and the call takes as long as they do. The same observations,
 * instruction and seed always give the same actions.
 *
 * `action` [D], physical units, within the limits of the embodiment. `action_count` must be D.
 * `info` may be NULL, else `info->struct_size` must be set.
 *
 * In LE_HOLD and LE_FAULT the call succeeds and gives the hold action: zero for a delta dimension,
 * the last command for an absolute or gripper dimension. The last command outlives le_reset. Before
 * any command there is nothing to keep: those dimensions are then 0 clamped to their limits, and
 * LE_STEP_NO_COMMAND says not to send them. Steps are counted in every state.
 *
 * When this step meets a fault, `error` receives the detail although the call returns LE_OK.
 * LE_INVALID_ARGUMENT.
 */
LE_API le_status le_step(le_policy *policy, float *action, uint32_t action_count,
                         le_step_info *info, char *error, uint32_t error_size);

/*
 * Start again at step 0 and acknowledge a fault. [setup]
 *
 * Forgets the observation, the plan and the actions left; keeps the instruction and the last
 * command. `seed` seeds the refiner's noise from now on. LE_INVALID_ARGUMENT.
 */
LE_API le_status le_reset(le_policy *policy, uint64_t seed);

/*
 * Run the planner alone, for parity checks and golden replay. [setup]
 *
 * Leaves the control state (observation, instruction, plan, step) as it is.
 * `tokens` [T]; `intent` [L, D], each in [0, N); `margin` [L, D], top-1 minus top-2 logit.
 * `plan_count` is the number of elements in each output: L * D.
 *
 * LE_INVALID_ARGUMENT, LE_NOT_FINITE (state or margin), LE_ENGINE.
 */
LE_API le_status le_plan(le_policy *policy, const le_observation *observation,
                         const int64_t *tokens, uint32_t token_count, int32_t *intent,
                         float *margin, uint64_t plan_count, char *error, uint32_t error_size);

/*
 * Run the refiner alone, for parity checks and golden replay. [setup]
 *
 * Leaves the control state as it is. `intent` [H, D], each in [0, N); `noise` [H, D];
 * `actions` [H, D], physical units, as the engine gave them: not clamped.
 * `chunk_count` is the number of elements in each: H * D.
 *
 * Without a planner: `intent` must be NULL; `noise` holds noise_count numbers, NULL where that is
 * 0; `actions` [R, D], and `chunk_count` is R * D; the observation holds S of them, oldest first,
 * in `images` and in `state`; the instruction is that of le_set_instruction.
 *
 * LE_INVALID_ARGUMENT, LE_NOT_FINITE (state, noise or actions), LE_ENGINE.
 */
LE_API le_status le_refine(le_policy *policy, const le_observation *observation,
                           const int32_t *intent, const float *noise, float *actions,
                           uint64_t chunk_count, char *error, uint32_t error_size);

/*
 * The standard normal noise that le_step feeds to the refiner for chunk number `chunk` after
 * le_reset(`seed`): Philox4x32-10 and Box-Muller, the same bits on every machine.
 * [thread-safe] [rt-safe]
 *
 * `noise` receives `count` numbers; any prefix of a longer request is the same.
 * LE_INVALID_ARGUMENT: `noise` is NULL, or `count` exceeds 2^32.
 */
LE_API le_status le_noise(uint64_t seed, uint64_t chunk, float *noise, uint64_t count);

/*
 * Begin async mode, at step 0. [setup]
 *
 * Starts a planner thread, which fills a buffer of intents, and a refiner thread, which keeps a
 * queue of actions filled. A plan made from the observation at step s covers s, s + 1, ...; the
 * part that is past when it arrives is dropped, the rest replaces what was planned. The
 * instruction, the last command and a latched fault stay; the observation is forgotten.
 *
 * With refine_ahead_steps 0 a chunk is begun as late as it can, so that what it saw is fresh: with
 * as few actions left as 99 of the last 100 refiner calls took control steps, the planner beside
 * them where it was (and blend_steps more), and after the observation of the present step where one
 * comes in every step. The planner is asked when the next chunk is not planned (or refill_at chunks
 * are left), right after a refiner call; nobody waits for it while a chunk is planned, or an eighth
 * of one adds to the queue. le_stats tells the choice and why. A number asks for that many actions
 * left, and then neither engine waits for an observation or for the other.
 *
 * Priorities, processors and memory locking are tried; le_tick_info says what the system granted.
 * A thread inherits the priority of the one that calls le_start: call it before the control loop
 * takes its real-time priority, or choose lower ones here.
 * Until le_stop, le_step is refused with LE_INVALID_ARGUMENT.
 *
 * LE_INVALID_ARGUMENT, LE_ENGINE, LE_NO_MEMORY.
 */
LE_API le_status le_start(le_policy *policy, const le_run_options *options, char *error,
                          uint32_t error_size);

/* End async mode and its threads; waits for engine calls to return. Harmless in sync mode. The
 * policy is then as after le_reset, but for a latched fault, which stays. LE_INVALID_ARGUMENT.
 * [setup] */
LE_API le_status le_stop(le_policy *policy);

/*
 * Do one control step in async mode. [rt-safe]
 *
 * Wait-free: takes the action of this step from the queue, within all limits. Call it once per
 * control period; every call is one step. `now_ns` is the present time on the clock of the
 * observations' time stamps. A clock that jumps costs LE_HOLD until the next fresh observation,
 * never a stale action.
 *
 * `action` [D]; `action_count` must be D. `info` may be NULL, else `info->struct_size` must be set.
 * In LE_HOLD and LE_FAULT, the hold action as in le_step. HOLD ends by itself when its reason does;
 * FAULT lasts until le_reset.
 *
 * LE_INVALID_ARGUMENT: also before le_start.
 */
LE_API le_status le_tick(le_policy *policy, uint64_t now_ns, float *action, uint32_t action_count,
                         le_tick_info *info);

/* Use only the first `chunks_per_plan` chunks of each plan from the next one on, 1 to M: fresher
 * intents, more planner calls. Survives le_reset, not le_start. LE_INVALID_ARGUMENT: also before
 * le_start. [thread-safe] [rt-safe] */
LE_API le_status le_set_chunks_per_plan(le_policy *policy, uint32_t chunks_per_plan);

/*
 * Do one piece of the threads' work in this thread. [setup]
 *
 * For simulators and replays, which decide themselves when a call begins and when its result
 * arrives. Only after le_start with LE_RUN_MANUAL. `work` is one of LE_WORK_...; `*done` receives
 * 1, or 0 where there was nothing to do. An ..._END belongs to each ..._BEGIN that was done, or to
 * each ..._CLAIM and the ..._RUN after it. The planner's pieces and the refiner's may each be done
 * in a thread of its own, beside the control loop.
 * LE_INVALID_ARGUMENT.
 */
LE_API le_status le_work(le_policy *policy, uint32_t work, uint32_t *done);

/*
 * Copy the intents of the newest planner call, for recorders. [rt-safe]
 *
 * `intent` [L, D]; `plan_count` is L * D. In sync mode the call that le_step made; in async mode
 * the one that le_work made, and only in the thread that does the planner's pieces.
 * LE_INVALID_ARGUMENT: also where there was no call yet, or threads make them.
 */
LE_API le_status le_last_plan(const le_policy *policy, int32_t *intent, uint64_t plan_count);

/* Read the statistics of async mode since le_start. `stats->struct_size` must be set.
 * LE_INVALID_ARGUMENT: also before le_start. [thread-safe] */
LE_API le_status le_stats(le_policy *policy, le_stats_info *stats);

/* Copy a sentence on the latched fault, "" without a fault, cut to `size` bytes.
 * LE_INVALID_ARGUMENT. [setup] */
LE_API le_status le_fault_text(le_policy *policy, char *text, uint32_t size);

/* Release everything a policy holds. NULL is fine. [setup] */
LE_API void le_destroy(le_policy *policy);

#ifdef __cplusplus
}
#endif

#endif /* LIBRA_EDGE_H */
