/* Replays the golden vectors of a release through the C ABI and compares.
 *
 *     golden RELEASE [ACTION_TOLERANCE [MARGIN_TOLERANCE]]
 *
 * Exit status: 0 all equal within the tolerances, 1 they differ, 2 something could not be read or
 * run. An intent may differ only where its margin is below the margin tolerance. */
#include <libra_edge.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_NPY_HEADER = 4096, MAX_AXES = 8 };

static void die(const char *what, const char *detail) {
  fprintf(stderr, "golden: %s: %s\n", what, detail);
  exit(2);
}

/* Reads RELEASE/golden/NAME.npy: little-endian, C order, `type` as in NumPy's descr, `rows` samples
 * of `row` elements. Learns `*rows` where it is 0. */
static void *read_npy(const char *release, const char *name, const char *type, size_t size,
                      uint64_t *rows, uint64_t row) {
  char path[4096], header[MAX_NPY_HEADER + 1] = {0};
  unsigned char preamble[10];
  snprintf(path, sizeof path, "%s/golden/%s.npy", release, name);
  FILE *file = fopen(path, "rb");
  if (file == NULL) die("cannot open", path);
  if (fread(preamble, 1, 10, file) != 10 || memcmp(preamble, "\x93NUMPY\x01\x00", 8) != 0) {
    die("not an npy file of version 1", path);
  }
  const size_t length = preamble[8] + 256u * preamble[9];
  if (length > MAX_NPY_HEADER || fread(header, 1, length, file) != length) die("header", path);
  char descr[32];
  snprintf(descr, sizeof descr, "'descr': '%s'", type);
  if (strstr(header, descr) == NULL) die("another element type", path);
  if (strstr(header, "'fortran_order': False") == NULL) die("not in C order", path);
  const char *shape = strstr(header, "'shape': (");
  if (shape == NULL) die("no shape", path);
  shape += strlen("'shape': (");
  uint64_t samples = 0, elements = 1;
  for (int axis = 0; axis < MAX_AXES && *shape != ')' && *shape != '\0'; ++axis) {
    char *end;
    const uint64_t extent = strtoull(shape, &end, 10);
    if (end == shape) die("bad shape", path);
    if (axis == 0)
      samples = extent;
    else
      elements *= extent;
    shape = end;
    while (*shape == ',' || *shape == ' ') ++shape;
  }
  if (*rows == 0) *rows = samples;
  if (samples != *rows || elements != row) die("another shape than the release", path);
  void *data = malloc(samples * row * size);
  if (data == NULL || fread(data, size, samples * row, file) != samples * row) die("short", path);
  fclose(file);
  return data;
}

static void check(le_status status, const char *what, const char *error) {
  if (status != LE_OK) {
    fprintf(stderr, "golden: %s: %s: %s\n", what, le_status_name(status), error);
    exit(2);
  }
}

static double worst(const float *a, const float *b, uint64_t count) {
  double most = 0;
  for (uint64_t i = 0; i < count; ++i) {
    const double difference = fabs((double)a[i] - (double)b[i]);
    if (!(difference <= most)) most = difference; /* NaN counts as worst */
  }
  return most;
}

int main(int argc, char **argv) {
  if (argc < 2) die("usage", "golden RELEASE [ACTION_TOLERANCE [MARGIN_TOLERANCE]]");
  const char *release = argv[1];
  const double action_tolerance = argc > 2 ? atof(argv[2]) : 1e-4;
  const double margin_tolerance = argc > 3 ? atof(argv[3]) : 1e-3;
  char error[LE_ERROR_SIZE];

  le_open_options options;
  memset(&options, 0, sizeof options);
  options.struct_size = sizeof options;
  options.abi_version = LE_ABI_VERSION;
  options.release_dir = release;
  options.threads = 1;
  le_policy *policy = NULL;
  check(le_open(&options, &policy, error, sizeof error), "le_open", error);

  le_policy_info info;
  memset(&info, 0, sizeof info);
  info.struct_size = sizeof info;
  check(le_info(policy, &info), "le_info", "");
  const uint64_t pixels = (uint64_t)3 * info.cameras * info.image_height * info.image_width;
  const uint64_t plan = (uint64_t)info.plan_steps * info.action_dim;
  const uint64_t chunk = (uint64_t)info.chunk * info.action_dim;

  uint64_t samples = 0;
  uint8_t *images = read_npy(release, "images", "|u1", 1, &samples, pixels);
  int64_t *tokens = read_npy(release, "instruction", "<i8", 8, &samples, info.instruction_length);
  float *state = read_npy(release, "state", "<f4", 4, &samples, info.state_dim);
  float *noise = read_npy(release, "noise", "<f4", 4, &samples, chunk);
  int32_t *intent = read_npy(release, "intent", "<i4", 4, &samples, plan);
  float *margin = read_npy(release, "margin", "<f4", 4, &samples, plan);
  float *actions = read_npy(release, "actions", "<f4", 4, &samples, chunk);
  int32_t *found_intent = calloc(plan, sizeof *found_intent);
  float *found_margin = calloc(plan, sizeof *found_margin);
  float *found_actions = calloc(chunk, sizeof *found_actions);
  if (found_intent == NULL || found_margin == NULL || found_actions == NULL) die("memory", "");

  uint64_t different = 0, wrong = 0;
  double worst_margin = 0, worst_action = 0;
  for (uint64_t i = 0; i < samples; ++i) {
    le_observation observation;
    memset(&observation, 0, sizeof observation);
    observation.struct_size = sizeof observation;
    observation.images = images + i * pixels;
    observation.image_bytes = pixels;
    observation.state = state + i * info.state_dim;
    observation.state_count = info.state_dim;
    const int64_t *words = tokens + i * info.instruction_length;
    check(le_plan(policy, &observation, words, info.instruction_length, found_intent, found_margin,
                  plan, error, sizeof error),
          "le_plan", error);
    for (uint64_t j = 0; j < plan; ++j) {
      if (found_intent[j] == intent[i * plan + j]) continue;
      ++different;
      wrong += !(margin[i * plan + j] < margin_tolerance);
    }
    worst_margin = fmax(worst_margin, worst(found_margin, margin + i * plan, plan));
    check(le_refine(policy, &observation, intent + i * plan, noise + i * chunk, found_actions,
                    chunk, error, sizeof error),
          "le_refine", error);
    worst_action = fmax(worst_action, worst(found_actions, actions + i * chunk, chunk));
  }

  const int pass = samples > 0 && wrong == 0 && worst_margin <= margin_tolerance &&
                   worst_action <= action_tolerance;
  printf(
      "%s: %llu samples, %llu intents differ (%llu of them not by a tie), margin %.3g, "
      "action %.3g: %s\n",
      info.name, (unsigned long long)samples, (unsigned long long)different,
      (unsigned long long)wrong, worst_margin, worst_action, pass ? "PASS" : "FAIL");
  le_destroy(policy); /* the name belongs to it */
  return pass ? 0 : 1;
}
