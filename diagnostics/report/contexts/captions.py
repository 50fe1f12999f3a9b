"""Which tables people are shown, with captions that define every symbol, and their columns."""

from __future__ import annotations

from diagnostics.report.contexts.rows import TABLE_SELECTORS
from diagnostics.report.tables.views import LABELS, Shown, View
from diagnostics.statistics.analyses.headlines import HEADLINES

_WHO = (Shown("run", "run", "text"), Shown("checkpoint", "checkpoint", "text"))
_K = Shown("K", "top_k", "count")

VIEWS: dict[str, View] = {
    "answers": View(
        "Answers for every checkpoint",
        "The number behind each question, with the jackknife's t interval over prompts. Yes and "
        "No: the interval lies beyond 0 and beyond the noise of scoring. Noise: how far from 0 the "
        "same number of an unchanged checkpoint comes.",
        (
            *_WHO,
            Shown("number", "question", "text"),
            Shown("of", "outcome", "text"),
            Shown("clear", "verdict", "text"),
            Shown("value", "value", "interval"),
            Shown("noise", "value_noise"),
        ),
    ),
    "checkpoints": View(
        "Checkpoints: what training did",
        "Means over every position of the bank. KL is KL(teacher ‖ student) in nats; gain is "
        "KL before less KL after, positive when training moved the student toward the teacher. "
        "Relative gain divides by KL before, so positions with almost nothing to gain dominate "
        "its mean; its median is beside it. Intervals: 95 % prompt-cluster bootstrap. Within noise:"
        " positions whose |gain| is no more than an unchanged checkpoint's at 99 % of positions.",
        (
            *_WHO,
            Shown("KL before", "kl_0"),
            Shown("KL after", "kl"),
            Shown("gain", "gain", "interval"),
            Shown("relative gain", "gain", "interval", "_rel"),
            Shown("median relative", "gain_rel_median"),
            Shown("positions improved", "improved_share", "share"),
            Shown("within noise", "within_noise_share", "share"),
        ),
    ),
    "noise": View(
        "Noise of scoring: gains of a checkpoint that did not change",
        "theta_0 scored a second time, in another batch shape or dtype, over a sample of contexts; "
        "its true gain is 0 everywhere. Mean: signed mean gain, nats, with its 95 % prompt-cluster "
        "interval. Size: |gain| is no more than this at so many positions. Counts: whether the "
        "kind is in this run's gains (another batch shape, or a dtype finer than the run's). Under "
        "each other table stands what the same unchanged checkpoint shows there.",
        (
            Shown("run", "run", "text"),
            Shown("kind", "kind", "text"),
            Shown("contexts", "n_contexts", "count"),
            Shown("positions", "n_positions", "count"),
            Shown("mean gain", "mean", "interval"),
            Shown("size at 50 %", "q50"),
            Shown("90 %", "q90"),
            Shown("99 %", "q99"),
            Shown("largest", "max"),
            Shown("counts", "counts", "text"),
        ),
    ),
    "table01": View(
        "Table 1: high-support less low-support gain inside Q3",
        "Q3 is the low-entropy, high-KL quadrant. Gap: mean gain of the third of Q3 positions with "
        "the most teacher mass C on the student's top-K, less that of the third with the least. "
        "Matched gap: within a prompt, each position above the prompt's median C against the "
        "nearest one not above it in (H̃, D̃, relative position). Nats.",
        (
            *_WHO,
            _K,
            Shown("contexts", "n_contexts", "count"),
            Shown("positions", "n_positions", "count"),
            Shown("in Q3", "n_q3", "count"),
            Shown("gap", "gap", "interval"),
            Shown("matched gap", "matched_gap", "interval"),
            Shown("gap of relative gain", "gap", "interval", "_rel"),
        ),
    ),
    "table05": View(
        "Table 5: inventory",
        "What was scored. Fewer than 100 prompts are a boundary check, not a main result.",
        (
            *_WHO,
            Shown("contexts", "n_contexts", "count"),
            Shown("prompts", "n_prompts", "count"),
            Shown("positions", "n_positions", "count"),
            Shown("use", "use", "text"),
        ),
    ),
    "table06": View(
        "Table 6: other measures of support, inside Q3",
        "The gap of Table 1 with other proxies in C's place. Jaccard is a monotone function of "
        "overlap, so the two agree by construction and are one piece of evidence. bc_union (CBC): "
        "the paper gives no formula; the public code computes the Bhattacharyya coefficient on "
        "the union of both top-Ks. Tied: share of Q3 positions that lie exactly on a cut.",
        (
            *_WHO,
            _K,
            Shown("proxy", "proxy", "text"),
            Shown("in Q3", "n_positions", "count"),
            Shown("gap", "gap", "interval"),
            Shown("gap of relative gain", "gap", "interval", "_rel"),
            Shown("tied", "tied_share", "share"),
        ),
    ),
    "table08": View(
        "Table 8: exact budgets",
        "Every selector keeps exactly ⌈ρN⌉ positions; gain is their mean, in nats. Per keep: gain "
        "/ ρ. H̃, D̃, C̃: mean normalised entropy, disagreement and compatibility of what is kept. "
        "Tied: share of kept positions that only the tie-break decided. Short: Q3 had fewer "
        "positions than asked for. Selectors beyond the paper's at the main K.",
        (
            *_WHO,
            _K,
            Shown("selector", "selector", "text"),
            Shown("budget", "budget", "share"),
            Shown("kept", "n_kept", "count"),
            Shown("gain", "gain", "interval"),
            Shown("per keep", "gain_per_keep"),
            Shown("relative gain", "gain", "interval", "_rel"),
            Shown("Q3", "q3_share", "share"),
            Shown("H̃", "entropy_norm"),
            Shown("D̃", "disagreement_norm"),
            Shown("C̃", "compatibility_norm"),
            Shown("tied", "tied_share", "share"),
            Shown("short", "short", "text"),
        ),
    ),
    "table09": View(
        "Table 9: regression",
        "Least squares of gain on z-scored predictors: nats of gain per standard deviation. "
        "β_L, β_I: learnable D^L = D̃C̃ and incompatible D^I = D̃(1 − C̃) disagreement, beside H̃, "
        "relative position and H̃_T. Gap: β_L − β_I. ΔR²: over the baseline with D̃ and H̃×D̃; the "
        "decomposed model drops these two, so its ΔR² may be negative.",
        (
            *_WHO,
            _K,
            Shown("scope", "scope", "text"),
            Shown("positions", "n_positions", "count"),
            Shown("β_L", "beta_l", "interval"),
            Shown("β_I", "beta_i", "interval"),
            Shown("gap", "gap", "interval"),
            Shown("gap of relative gain", "gap", "interval", "_rel"),
            Shown("ΔR² decomposed", "delta_r2_decomposed"),
            Shown("ΔR² with C̃", "delta_r2_compatibility"),
        ),
    ),
    "choices": View(
        "Which selector leads, and by how much",
        "At each budget the selector whose kept positions gained most (absolute gain, nats), and "
        "how far it is above each other one: bands that hold together in 95 % of samples, since "
        "what leads among many leads partly by chance. `random` does not compete.",
        (
            *_WHO,
            Shown("budget", "budget", "share"),
            Shown("leader", "best", "text"),
            Shown("gain", "gain", "interval"),
            Shown("other", "other", "text"),
            Shown("above it by", "over", "interval"),
        ),
    ),
    "quadrants": View(
        "Quadrants of the entropy–KL plane",
        "Both axes are cut at their median over the bank. Q1: high entropy, high KL. Q2: high, "
        "low. Q3: low, high (confident and in disagreement). Q4: low, low.",
        (
            *_WHO,
            Shown("quadrant", "quadrant", "count"),
            Shown("share", "share", "share"),
            Shown("positions", "n_positions", "count"),
            Shown("mean H", "entropy"),
            Shown("mean KL", "kl_0"),
            Shown("mean C", "compatibility"),
            Shown("gain", "gain", "interval"),
        ),
    ),
    "signals": View(
        "Signals before training",
        "Quantiles over the bank at theta_0: C (teacher mass on the student's top-K), D, KL and "
        "both entropies, in nats where they are information.",
        (
            Shown("run", "run", "text"),
            _K,
            Shown("signal", "signal", "text"),
            Shown("mean", "mean"),
            *(Shown(f"{q} %", f"q{q:02d}") for q in (1, 5, 10, 25, 50, 75, 95)),
            Shown("under 0.5", "under_0.5", "share"),
            Shown("under 0.9", "under_0.9", "share"),
        ),
    ),
    "intervals": View(
        "Headline numbers with every kind of interval",
        "One number, several ways to its 95 % interval over prompts. Percentile: quantiles of the "
        "bootstrap draws. BCa: those, corrected for bias and skew. Studentised: each draw divided "
        "by its own error (bootstrap-t). CR3: t with the jackknife's error. Redone: percentile, "
        "with norms, cuts and z-scores made anew in each draw (asked for by --redo-cuts). "
        "Recommended: what held the truth most often in simulation (docs/coverage.md); the answers "
        "above use it. The CSV has CR1 and CR2 too.",
        (
            *_WHO,
            Shown("number", "statistic", "text"),
            Shown("of", "outcome", "text"),
            Shown("percentile", "percentile", "interval"),
            Shown("BCa", "bca", "interval"),
            Shown("studentised", "studentized", "interval"),
            Shown("CR3", "cr3", "interval"),
            Shown("redone", "redone", "interval"),
            Shown("recommended", "recommended", "text"),
        ),
    ),
    "bands": View(
        "Families of numbers: simultaneous bands",
        "Looking at many numbers at one time, some interval misses by chance. A band holds all "
        "numbers of its family together in 95 % of samples (sup-t, same draws). Gain in nats.",
        (
            *_WHO,
            Shown("family", "family", "text"),
            Shown("member", "member", "text"),
            Shown("alone", "value", "interval"),
            Shown("band low", "band_low"),
            Shown("band high", "band_high"),
        ),
    ),
    "q3_kinds": View(
        "Kinds of Q3 positions (Fig. 3B)",
        "Mean gain, nats, of positions in Q3 by what they are: the upper (q3+high-dl) and lower "
        "(q3+low-dl) third by D^L, the upper third by D^I (q3+high-di). Positions of the bank, not "
        "masks that were trained on.",
        (
            *_WHO,
            Shown("kind", "mask", "text"),
            Shown("positions", "n_positions", "count"),
            Shown("gain", "gain", "interval"),
        ),
    ),
    "buckets": View(
        "Buckets inside Q3 (Fig. 4D)",
        "Q3 positions in quarters of a signal, lowest first; equal values stay together, so "
        "buckets may differ in size. Gain: mean, nats. Trend: slope of the means over the "
        "buckets' numbers.",
        (
            *_WHO,
            Shown("signal", "signal", "text"),
            Shown("bucket", "bucket", "count"),
            Shown("positions", "n", "count"),
            Shown("signal's mean", "signal_mean"),
            Shown("gain", "gain", "interval"),
            Shown("median", "median"),
            Shown("trend", "slope", "interval"),
        ),
    ),
    "bins": View(
        "Residualised bins (Fig. 5C)",
        "What is left of the gain after least squares on H̃, D̃, relative position and H̃_T, in "
        "tenths of a signal, lowest first, over the bank; a regression of its own in each draw. "
        "Trend: slope of the means over the bins' numbers. First checkpoint of each run.",
        (
            *_WHO,
            Shown("signal", "signal", "text"),
            Shown("bin", "bucket", "count"),
            Shown("positions", "n", "count"),
            Shown("signal's mean", "signal_mean"),
            Shown("residual gain", "residual", "interval"),
            Shown("median", "median"),
            Shown("trend", "slope", "interval"),
        ),
    ),
    "trajectory": View(
        "Over training",
        "Each headline number at each step of a series of checkpoints; the band holds the whole "
        "series together in 95 % of samples. Change: last step less first, paired.",
        (
            Shown("run", "run", "text"),
            Shown("series", "series", "text"),
            Shown("number", "statistic", "text"),
            Shown("step", "step", "count"),
            Shown("value", "estimate", "interval"),
            Shown("band low", "band_low"),
            Shown("band high", "band_high"),
            Shown("change", "change", "interval"),
        ),
    ),
    "pooled": View(
        "Table 1 over all settings",
        "The support gap and the matched gap inside Q3, pooled over the runs of this report: over "
        "all positions, then every run weighing the same, then each. Q: Cochran's, with the share "
        "of draws whose Q is larger; small where settings differ.",
        (
            Shown("number", "number", "text"),
            Shown("setting", "setting", "text"),
            Shown("positions", "n_positions", "count"),
            Shown("gap", "gap", "interval"),
            Shown("Q", "q"),
            Shown("p of Q", "q_p"),
        ),
    ),
    "placebo": View(
        "Placebo: D and C shuffled within prompts",
        "Every position is given the D and C of another position of its prompt, so D^L and D^I say "
        "nothing of the position they stand at; the number should fall to about 0. What it keeps "
        "comes from differences between prompts. Clear: share of shuffles whose interval excludes "
        "0, about 5 % when intervals are right. First checkpoint of each run, absolute gain.",
        (
            *_WHO,
            Shown("number", "statistic", "text"),
            Shown("real", "real", "interval"),
            Shown("shuffles", "shuffles", "count"),
            Shown("shuffled, mean", "mean"),
            Shown("smallest", "smallest"),
            Shown("largest", "largest"),
            Shown("clear", "excludes_zero", "share"),
        ),
    ),
    "definitions_differ": View(
        "What each definition does to each headline number",
        "The set `paper` against each departure of the public scripts (`released`) alone, then all "
        "of them, then with leakage: H and C measured on the trained checkpoint, which know the "
        "outcome. A row that equals the first one is of a definition that cannot touch the number. "
        "The CSV holds the paired changes too. First checkpoint of each run.",
        (
            *_WHO,
            Shown("definitions", "definitions", "text"),
            Shown("of", "outcome", "text"),
            *(Shown(LABELS[name], name, "interval") for name in HEADLINES),
        ),
    ),
    "design": View(
        "How many prompts would do",
        "This run as a pilot: the half-width that so many prompts can expect, and how many prompts "
        "with rollouts like these would bring it to half of the number (a number whose sign is not "
        "clear gives no goal). Design effect: variance over that of as many independent positions. "
        "Other widths, more rollouts, shorter ones: `diagnostics plan`. First checkpoint.",
        (
            *_WHO,
            Shown("number", "statistic", "text"),
            Shown("estimate", "estimate", "interval"),
            Shown("prompts", "prompts", "count"),
            Shown("half-width", "half_width"),
            Shown("wanted", "wanted"),
            Shown("prompts needed", "prompts_needed", "count"),
            Shown("design effect", "design_effect"),
        ),
    ),
    "selector_overlap": View(
        "How far selectors keep the same positions",
        "Jaccard index of the positions that two selectors keep at 5 %: those of both over those "
        "of either. 1: the same positions; two random choices of 5 % share 0.026.",
        (
            Shown("run", "run", "text"),
            Shown("selector", "selector", "text"),
            Shown("kept", "n_kept", "count"),
            Shown("Q3", "q3_share", "share"),
            *(Shown(name, f"jaccard {name}") for name in TABLE_SELECTORS),
        ),
    ),
}

PAPER_COLUMNS: dict[str, tuple[Shown, ...]] = {
    "table01": (
        Shown("setting", "setting", "text"),
        Shown("context", "context", "text"),
        *(
            c
            for c in VIEWS["table01"].columns
            if c.column in ("top_k", "n_contexts", "n_positions")
        ),
        Shown("gap", "gap", "interval"),
        Shown("matched gap", "matched_gap"),
    ),
    "table05": (
        Shown("setting", "setting", "text"),
        Shown("contexts", "n_contexts", "count"),
        Shown("positions", "n_positions", "count"),
        Shown("use", "use", "text"),
    ),
    "table06": (
        _K,
        Shown("proxy", "proxy", "text"),
        Shown("in Q3", "n_positions", "count"),
        Shown("gap", "gap", "interval"),
    ),
    "table08": (
        Shown("selector", "selector", "text"),
        Shown("budget", "budget", "share"),
        Shown("gain", "gain", "interval"),
        Shown("per keep", "gain_per_keep"),
        Shown("Q3", "q3_share", "share"),
        Shown("H̃", "entropy_norm"),
        Shown("D̃", "disagreement_norm"),
        Shown("C̃", "compatibility_norm"),
    ),
    "table09": (
        _K,
        Shown("in Q3", "n_q3", "count"),
        Shown("β_L", "beta_l"),
        Shown("β_I", "beta_i"),
        Shown("gap", "gap", "interval"),
        Shown("ΔR² decomposed", "delta_r2_decomposed"),
    ),
}
