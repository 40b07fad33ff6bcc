/* Prints the actions of a release for made-up observations, in sync and in async mode.
 *
 *     actions RELEASE STEPS
 *
 * One line per step: the mode, then D numbers. */
#include <libra_edge.h>
#include <stdio.h>
#include <stdlib.h>

static char error[LE_ERROR_SIZE];

static void check(le_status status, const char *what) {
  if (status == LE_OK) return;
  fprintf(stderr, "actions: %s: %s: %s\n", what, le_status_name(status), error);
  exit(2);
}

static uint32_t next(uint32_t *state) {
  *state = *state * 1664525u + 1013904223u;
  return *state >> 8;
}

static void work(le_policy *policy, uint32_t begin) {
  uint32_t done = 0;
  do {
    check(le_work(policy, begin, &done), "le_work");
    if (done) check(le_work(policy, begin + 1, &done), "le_work");
  } while (done && begin == LE_WORK_REFINE_BEGIN);
}

int main(int argc, char **argv) {
  if (argc != 3) return 2;
  const int steps = atoi(argv[2]);
  le_open_options options = {0};
  options.struct_size = sizeof options;
  options.abi_version = LE_ABI_VERSION;
  options.release_dir = argv[1];
  options.seed = 5;
  options.threads = 1;
  le_policy *policy = NULL;
  check(le_open(&options, &policy, error, sizeof error), "le_open");
  le_policy_info info = {0};
  info.struct_size = sizeof info;
  check(le_info(policy, &info), "le_info");
  const size_t bytes = (size_t)info.cameras * info.image_height * info.image_width * 3;
  uint8_t *images = malloc(bytes);
  float *state = malloc(info.state_dim * sizeof *state);
  float *action = malloc(info.action_dim * sizeof *action);
  int64_t *tokens = calloc(info.instruction_length, sizeof *tokens);
  if (images == NULL || state == NULL || action == NULL || tokens == NULL) return 2;
  check(le_set_instruction(policy, tokens, info.instruction_length, error, sizeof error), "tokens");
  le_run_options run = {0};
  run.struct_size = sizeof run;
  run.flags = LE_RUN_MANUAL;
  for (int async = 0; async < 2; ++async) {
    uint32_t random = 1;
    if (async) check(le_start(policy, &run, error, sizeof error), "le_start");
    for (int step = 0; step < steps; ++step) {
      for (size_t i = 0; i < bytes; ++i) images[i] = (uint8_t)(next(&random) % 200);
      for (uint32_t i = 0; i < info.state_dim; ++i) {
        state[i] = (float)(next(&random) % 2000) / 1000.0f - 1.0f;
      }
      le_observation observation = {0};
      observation.struct_size = sizeof observation;
      observation.state_count = info.state_dim;
      observation.images = images;
      observation.image_bytes = bytes;
      observation.state = state;
      observation.timestamp_ns = (uint64_t)step * 1000000u;
      check(le_observe(policy, &observation, error, sizeof error), "le_observe");
      if (async) {
        work(policy, LE_WORK_PLAN_BEGIN);
        work(policy, LE_WORK_REFINE_BEGIN);
        check(le_tick(policy, observation.timestamp_ns, action, info.action_dim, NULL), "le_tick");
      } else {
        check(le_step(policy, action, info.action_dim, NULL, error, sizeof error), "le_step");
      }
      printf("%s", async ? "async" : "sync");
      for (uint32_t d = 0; d < info.action_dim; ++d) printf(" %.9g", (double)action[d]);
      printf("\n");
    }
  }
  le_destroy(policy);
  free(images);
  free(state);
  free(action);
  free(tokens);
  return 0;
}
