/* A complete control loop around a release: 200 steps per second, async mode, one fake robot.
 *
 *     cc -std=c11 -O2 -I RELEASE/include control_loop.c RELEASE/lib/liblibra_edge.so
 *       -o control_loop
 *     LD_LIBRARY_PATH=RELEASE/lib ./control_loop RELEASE "open the faucet" [SECONDS [HERTZ]]
 *
 * Exit status: 0 the robot moved and stayed within its period, 1 it held still or met a fault, 2
 * the release could not be opened. Replace `struct robot` and its three functions with your own. */
#define _POSIX_C_SOURCE 200809L
#include <libra_edge.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

/* ---- the robot: joints that follow their commands, cameras that show a moving gradient ----------
 */

struct robot {
  le_policy_info info;
  uint8_t *images;
  float *state;
  size_t image_bytes;
  uint32_t frame;
};

static int robot_open(struct robot *robot, const le_policy_info *info) {
  robot->info = *info;
  robot->frame = 0;
  robot->image_bytes = (size_t)info->cameras * info->image_height * info->image_width * 3;
  robot->images = calloc(robot->image_bytes, 1);
  robot->state = calloc(info->state_dim, sizeof *robot->state);
  return robot->images != NULL && robot->state != NULL;
}

static void robot_look(struct robot *robot) {
  ++robot->frame;
  for (size_t i = 0; i < robot->image_bytes; ++i) {
    robot->images[i] = (uint8_t)((i / 3 + robot->frame) % 200);
  }
}

static void robot_move(struct robot *robot, const float *action) {
  for (uint32_t i = 0; i < robot->info.state_dim && i < robot->info.action_dim; ++i) {
    robot->state[i] += 0.1f * (action[i] - robot->state[i]);
  }
}

/* ---- time -------------------------------------------------------------------------------------
 */

static uint64_t now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void sleep_until(uint64_t due_ns) {
  const struct timespec due = {(time_t)(due_ns / 1000000000u), (long)(due_ns % 1000000000u)};
  while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL) != 0) continue;
}

/* ---- the loop ---------------------------------------------------------------------------------
 */

struct outcome {
  uint64_t steps, running, late;
  le_state state;
  le_reason reason;
};

static int control(le_policy *policy, struct robot *robot, double seconds, double hertz,
                   struct outcome *outcome) {
  const uint64_t period_ns = (uint64_t)(1e9 / hertz);
  const uint64_t steps = (uint64_t)(seconds * hertz);
  char error[LE_ERROR_SIZE];
  float *action = calloc(robot->info.action_dim, sizeof *action);
  if (action == NULL) return 0;
  le_observation observation = {0};
  observation.struct_size = sizeof observation;
  observation.state_count = robot->info.state_dim;
  observation.images = robot->images;
  observation.image_bytes = robot->image_bytes;
  observation.state = robot->state;
  le_tick_info info = {0};
  info.struct_size = sizeof info;
  uint64_t due_ns = now_ns();
  int good = 1;
  for (uint64_t step = 0; good && step < steps; ++step) {
    /* A real robot does this part in its cameras' thread. */
    if (step % 8 == 0) robot_look(robot);
    observation.timestamp_ns = now_ns();
    good = le_observe(policy, &observation, error, sizeof error) == LE_OK &&
           le_tick(policy, now_ns(), action, robot->info.action_dim, &info) == LE_OK;
    /* Before the first command there is nothing to hold: an absolute joint must not be sent. */
    if ((info.flags & LE_STEP_NO_COMMAND) == 0) robot_move(robot, action);
    outcome->running += info.state == LE_RUNNING;
    due_ns += period_ns;
    outcome->late += now_ns() > due_ns;
    sleep_until(due_ns);
  }
  outcome->steps = steps;
  outcome->state = info.state;
  outcome->reason = info.reason;
  free(action);
  return good;
}

static void print_stats(le_policy *policy) {
  le_stats_info stats = {0};
  stats.struct_size = sizeof stats;
  if (le_stats(policy, &stats) != LE_OK) return;
  const le_histogram *rows[] = {&stats.tick_ns, &stats.planner_ns, &stats.refiner_ns};
  const char *names[] = {"tick", "planner", "refiner"};
  for (int i = 0; i < 3; ++i) {
    printf("%-8s p50 %10.1f us  p99 %10.1f us  max %10.1f us\n", names[i],
           (double)rows[i]->p50 / 1e3, (double)rows[i]->p99 / 1e3, (double)rows[i]->max / 1e3);
  }
  printf("holds %llu, underruns %llu, faults %llu\n", (unsigned long long)stats.holds,
         (unsigned long long)stats.underruns, (unsigned long long)stats.faults);
}

int main(int argc, char **argv) {
  if (argc < 3) {
    fprintf(stderr, "usage: control_loop RELEASE INSTRUCTION [SECONDS [HERTZ]]\n");
    return 2;
  }
  const double seconds = argc > 3 ? atof(argv[3]) : 5, hertz = argc > 4 ? atof(argv[4]) : 200;
  char error[LE_ERROR_SIZE] = "";
  le_open_options options = {0};
  options.struct_size = sizeof options;
  options.abi_version = LE_ABI_VERSION;
  options.release_dir = argv[1];
  options.threads = 1;
  le_policy *policy = NULL;
  if (le_open(&options, &policy, error, sizeof error) != LE_OK) {
    fprintf(stderr, "control_loop: %s\n", error);
    return 2;
  }
  le_policy_info info = {0};
  info.struct_size = sizeof info;
  le_info(policy, &info);
  struct robot robot;
  int64_t *tokens = calloc(info.instruction_length, sizeof *tokens);
  le_run_options run = {0};
  run.struct_size = sizeof run;
  /* Give this thread a real-time priority on a robot, above run.planner_priority and the like. */
  run.flags = LE_RUN_LOCK_MEMORY;
  run.refill_at = info.chunks_per_plan;
  struct outcome outcome = {0};
  const int good =
      robot_open(&robot, &info) && tokens != NULL &&
      le_tokenize(policy, argv[2], tokens, info.instruction_length, error, sizeof error) == LE_OK &&
      le_set_instruction(policy, tokens, info.instruction_length, error, sizeof error) == LE_OK &&
      le_start(policy, &run, error, sizeof error) == LE_OK &&
      control(policy, &robot, seconds, hertz, &outcome);
  if (good) print_stats(policy);
  if (!good) fprintf(stderr, "control_loop: %s\n", error);
  printf("%s: %llu steps, %llu RUNNING, %llu late, last state %u reason %u\n", info.name,
         (unsigned long long)outcome.steps, (unsigned long long)outcome.running,
         (unsigned long long)outcome.late, outcome.state, outcome.reason);
  le_destroy(policy);
  free(tokens);
  free(robot.images);
  free(robot.state);
  return good && outcome.state != LE_FAULT && 2 * outcome.running > outcome.steps ? 0 : 1;
}
