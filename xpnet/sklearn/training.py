"""Fits: epoch by epoch as scikit-learn has them, or by L-BFGS on all rows at once."""

from __future__ import annotations

import copy
import functools
import warnings
from typing import Any, Self

import numpy as np
import scipy.optimize
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils.optimize import _check_optimize_result

from ..core.checks import one_at_a_time
from ..core.device import Device, HostArray, all_true, get_device
from ..core.interrupts import DeferredInterrupt
from ..data.arrays import check_pair
from ..data.batches import spans
from ..data.preparation import Preparation
from ..model.prediction import PREDICT_ROWS
from ..optim import OPTIMIZERS, SCHEDULES, Optimizer
from ..optim.schedules import constant
from ..training.callbacks import asks_to_stop
from ..training.choice import faster_device
from .base import BaseMLP
from .distribution_shift import warn_if_elsewhere
from .fitting import Examples, Fitting, few_threads
from .inputs import ColumnValues, check_outputs, check_x_y, features_of, lives_on, on_host
from .models import copy_values, in_dtype
from .rules import SGD, Adam, Gather

TYPICAL_OUTPUTS = 10  # of a network whose targets have not been read yet, for its time
LEAST_RATE = 1e-6  # at which the adaptive learning rate stops

Data = tuple[Any, Any]
Validation = tuple[Any, Any, Any]  # rows, targets and weights, which have not been checked
Split = tuple[HostArray, HostArray]  # numbers of the training rows, and of those held out


class TrainingMixin(BaseMLP):
    """`fit` and `partial_fit`, but for their signatures."""

    def _fit(
        self,
        x: Any,
        y: Any,
        sample_weight: Any,
        validation_data: Data | None = None,
        x_val: Any = None,
        y_val: Any = None,
        sample_weight_val: Any = None,
        *,
        incremental: bool = False,
    ) -> Self:
        given = [one is not None for one in (x_val, y_val, sample_weight_val)]
        if validation_data is not None:
            if any(given[:2]):
                raise ValueError("validation_data and X_val, y_val cannot both be given: they are the same thing")
            warnings.warn(
                "validation_data is deprecated: write fit(X, y, X_val=..., y_val=...). In a Pipeline the pair is not"
                " transformed; X_val is, with transform_input=['X_val'] and set_fit_request(X_val=True, y_val=True).",
                FutureWarning,
                stacklevel=4,
            )
            x_val, y_val = check_pair("validation_data", validation_data)
        elif any(given) and not all(given[:2]):
            raise ValueError(f"X_val and y_val go together: {'y_val' if given[0] else 'X_val'} is missing")
        validation = (x_val, y_val, sample_weight_val) if validation_data is not None or all(given[:2]) else None
        running = self.__dict__.setdefault("_running", {})
        with DeferredInterrupt() as interrupt, one_at_a_time(running, "the estimator"):
            return self._fit_alone(x, y, sample_weight, validation, interrupt, incremental=incremental)

    def _fit_alone(
        self,
        x: Any,
        y: Any,
        sample_weight: Any,
        validation: Validation | None,
        interrupt: DeferredInterrupt,
        *,
        incremental: bool,
    ) -> Self:
        hidden = self._hidden()
        first = not hasattr(self, "_model") or not (self.warm_start or incremental)
        device = self._chosen_device(x, hidden) if first else self._model.device
        with device.activate(), np.errstate(all="ignore"):
            checked = functools.partial(check_x_y, self, reset=first)
            x, y = interrupt.call(checked, x, y, device)  # no state has changed yet, and it may take long
            t = self._targets(y, reset=not hasattr(self, "classes_") or not (self.warm_start or incremental))
            w = self._weights(on_host(device, sample_weight), y, incremental=incremental)
            self._random_state = check_random_state(self.random_state)
            split = preparation = None
            if isinstance(x, ColumnValues):  # before the weights are drawn, whose number depends on it
                split = self._split(t, w, validation)
                preparation, x = self._prepared(x, t, split[0], first=first, incremental=incremental)
            if first:
                sizes = [x.shape[1], *hidden, self._width(t)]
                self._adopt(self._new_model(sizes, np.dtype(x.dtype).name, device, preparation))
                self._draw()
                self._reset_history()
            elif self._members != self._model.replicas:
                raise ValueError("n_ensembles cannot change from fit to fit: the network has other members")
            elif self._network_arguments() != self._made_of:
                self._rebuild(keep=incremental)
            check_outputs(self, t)
            if self._whole_batch:
                self._fit_whole(x, t, w, validation, interrupt)
            else:
                self._fit_batches(x, t, w, validation, split, interrupt, incremental=incremental)
            network = self._model.network
            if not all_true(network.xp.isfinite(network.values)):
                raise ValueError(
                    "Solver produced non-finite parameter weights. The input data may contain large values and need"
                    " to be preprocessed."
                )
        return self

    def _prepared(
        self, x: ColumnValues, t: HostArray, train: HostArray, *, first: bool, incremental: bool
    ) -> tuple[Preparation, HostArray]:
        """Preparation of a table, in the first fit fitted to its training rows, and the features of all rows, (N, F).

        The target means of training rows are those of other folds. Rows that partial_fit gets later are new to the
        preparation, and need none.
        """
        targets = t if t.ndim == 2 else t[:, None] == np.arange(1, len(self.classes_))
        preparation = Preparation.fit(x.columns, x.values[train], targets[train]) if first else self.preparation_
        assert preparation is not None
        features = preparation.of_values(*x)
        if first or not incremental:
            seed = int(self._random_state.randint(2**31))
            features[train] = preparation.of_training(x.columns, x.values[train], targets[train], seed)
        return preparation, features

    def _chosen_device(self, x: Any, hidden: list[int]) -> Device:
        """Return the estimator's device: of "auto", for rows of the host, the one that takes a step sooner."""
        device, shape = get_device(self.device), np.shape(x) if isinstance(x, np.ndarray) else ()
        if self.device != "auto" or device.index is None or len(shape) != 2 or self._whole_batch or 0 in shape:
            return device
        batch_size = min(200 if self.batch_size == "auto" else self.batch_size, shape[0])
        steps = self.max_iter * -(-shape[0] // batch_size)
        sizes, dtype = [shape[1], *hidden, TYPICAL_OUTPUTS], "float32" if x.dtype == np.float32 else "float64"
        faster, why = faster_device(device, sizes, batch_size, steps, dtype=dtype, replicas=self._members)
        if self.verbose:
            print(f"auto is {why}")
        return faster

    def _fit_whole(
        self,
        x: Any,
        t: HostArray,
        w: HostArray | None,
        validation: Validation | None,
        interrupt: DeferredInterrupt,
    ) -> None:
        """Minimize the loss of all rows by SciPy's L-BFGS-B, in float64 for rows of any type."""
        names = ("batch_norm", "dropout", "schedule", "restore_best", "callback")
        refused = [name for name in names if getattr(self, name)] + ["X_val"] * (validation is not None)
        refused += ["n_ensembles"] * (self._members is not None)
        if refused:
            raise ValueError(f"the solver lbfgs has no {', '.join(refused)}: take sgd or adam")
        model = in_dtype(self._model, "float64", self._summed(by_rows=False))
        fitting = Fitting(model, Gather(), self.alpha, constant())
        examples = Examples(model, x, t, w)

        def loss_and_gradient(values: HostArray) -> tuple[float, HostArray]:
            model.network.values = values
            loss, penalty, gradient = fitting.loss_and_gradient(examples, interrupt)
            self.loss_ = self._reported(loss, penalty)
            return loss + penalty, gradient

        def tell(values: HostArray) -> None:
            self.n_iter_ += 1
            print(f"Iteration {self.n_iter_}, loss = {self.loss_:.8f}")

        self.n_iter_ = 0
        result = scipy.optimize.minimize(
            loss_and_gradient,
            model.device.to_host(model.network.values).copy(),
            method="L-BFGS-B",
            jac=True,
            callback=tell if self.verbose else None,
            options={"maxfun": self.max_fun, "maxiter": self.max_iter, "gtol": self.tol},
        )
        self.n_iter_ = _check_optimize_result("lbfgs", result, self.max_iter)
        loss_and_gradient(result.x)
        copy_values(model, self._model)

    def _fit_batches(
        self,
        x: Any,
        t: HostArray,
        w: HostArray | None,
        validation: Validation | None,
        split: Split | None,
        interrupt: DeferredInterrupt,
        *,
        incremental: bool,
    ) -> None:
        """Train epoch by epoch, until the loss, or the score on held-out rows, stops improving."""
        if self.early_stopping and incremental:
            raise ValueError("partial_fit does not support early_stopping=True")
        if incremental and isinstance(self.schedule, str) and self.schedule != "constant":
            raise ValueError(
                f"schedule={self.schedule!r} is made for the length of a fit, and partial_fit does not know how many"
                " calls there will be: give a function of the number of steps, such as those in xpnet.optim.schedules"
            )
        if not hasattr(self, "loss_curve_"):  # until now, the solver was lbfgs
            self._reset_history()
        train, held = split or self._split(t, w, validation)
        held_out = self._held_out(x, t, w, validation, held)
        n = len(train)
        batch_size = 200 if self.batch_size == "auto" else self.batch_size
        if batch_size > n and self.batch_size != "auto":
            warnings.warn(
                "Got `batch_size` less than 1 or larger than sample size. It is going to be clipped", stacklevel=6
            )
        batch_size = min(batch_size, n)
        if self._fitting is None or not incremental:
            self._fitting = self._new_fitting(-(-n // batch_size), incremental)
        self._fitting.optimizer.alpha = float(self.alpha)  # which may have changed since the last partial_fit
        if self.restore_best and not incremental:  # of this fit: losses on other rows would be no measure
            self._best, self._best_watched = self._model.network.snapshot(), np.inf
        examples = Examples(self._model, x, t, w)
        order = train
        self.n_iter_ = 0
        diverged = False
        interrupt.check()  # before a step there is nothing to go on with
        try:
            for _ in range(self.max_iter):
                if self.shuffle:  # as `sklearn.utils.shuffle` does
                    places = np.arange(n)
                    self._random_state.shuffle(places)
                    order = order[places]
                loss, penalty = self._fitting.epoch(examples, order, batch_size, interrupt)
                self.n_iter_ += 1
                self.t_ += n
                self.loss_ = self._reported(loss, penalty)
                self.loss_curve_.append(self.loss_)
                if self.verbose:
                    print(f"Iteration {self.n_iter_}, loss = {self.loss_:.8f}")
                if w is None or w.any():  # a chunk without weight has no loss to compare
                    self._update_best(held_out)
                diverged = diverged or self._warn_of_losses(held_out)
                if self._is_over(interrupt) or incremental:
                    break
                if self.n_iter_ == self.max_iter:
                    warnings.warn(
                        f"Stochastic Optimizer: Maximum iterations ({self.max_iter}) reached and the optimization"
                        " hasn't converged yet.",
                        ConvergenceWarning,
                        stacklevel=6,
                    )
        except KeyboardInterrupt:
            warnings.warn("Training interrupted by user.", stacklevel=6)
        finally:
            if self._fitting is not None:
                self._fitting.release()
            if self._best is not None:
                self._model.network.restore(self._best)
                self._best = None
        if not diverged and self._fitting is not None and not self._fitting.is_finite():
            self._warn_of_divergence("gradients overflowed, and the update rule has stopped", stacklevel=7)

    def _warn_of_losses(self, held_out: Examples | None) -> bool:
        """Warn where the loss of the last epoch, or of held-out rows, is not finite; return whether it was not."""
        losses = {"training": self.loss_}
        if held_out is not None and self.validation_loss_curve_:
            losses["validation"] = self.validation_loss_curve_[-1]
        for name, loss in losses.items():
            if not np.isfinite(loss):
                self._warn_of_divergence(f"the {name} loss is {loss} after epoch {self.n_iter_}", stacklevel=8)
                return True
        return False

    def _warn_of_divergence(self, how: str, stacklevel: int) -> None:
        message = f"Training diverged: {how}. Try a lower learning_rate_init, or scale the data."
        warnings.warn(message, ConvergenceWarning, stacklevel=stacklevel)

    def _new_fitting(self, steps_in_epoch: int, incremental: bool) -> Fitting:
        steps = self.max_iter * steps_in_epoch
        schedule = self.schedule or constant()
        if isinstance(schedule, str):
            schedule = SCHEDULES[schedule](steps)
        return Fitting(self._model, self._rule(), self.alpha, schedule, expected=0 if incremental else steps)

    def _rule(self) -> Optimizer:
        """Make the update rule: scikit-learn's, or one of xpnet's with the arguments that apply to it."""
        if isinstance(self.optimizer, Optimizer):
            return copy.deepcopy(self.optimizer)
        if self.optimizer is None and self.solver == "sgd":
            return SGD(self.learning_rate_init, self.momentum, self.nesterovs_momentum)
        if self.optimizer is None:
            return Adam(self.learning_rate_init, self.beta_1, self.beta_2, self.epsilon)
        given = {"momentum": self.momentum} if self.optimizer in ("momentum", "nesterov") else {}
        if self.optimizer in ("adam", "adamw"):
            given = {"beta1": self.beta_1, "beta2": self.beta_2, "epsilon": self.epsilon}
        return OPTIMIZERS[self.optimizer](self.learning_rate_init, **given)

    def _split(self, t: HostArray, w: HostArray | None, validation: Validation | None) -> Split:
        """Numbers of the training rows, and of the rows that early stopping holds out."""
        everything = np.arange(len(t))
        if validation is not None or not self.early_stopping or self._whole_batch:
            return everything, everything[:0]
        # As in scikit-learn, two classes are split evenly, more classes at random. scikit-learn stratifies by a column,
        # which takes twelve times as long for the same rows; its error for a class of one row needs the column.
        even = t.astype(bool) if t.ndim == 1 and self._width(t) == 1 else None
        if even is not None and min(even.sum(), (~even).sum()) == 1:
            even = even[:, None]
        train, held = train_test_split(
            everything, random_state=self._random_state, test_size=self.validation_fraction, stratify=even
        )
        if len(held) < 2:
            raise ValueError(
                "The validation set is too small. Increase 'validation_fraction' or the size of your dataset."
            )
        if w is not None and not w[held].any():
            raise ValueError("Sample weights must contain at least one non-zero number, also among held-out rows.")
        return train, held

    def _held_out(
        self, x: Any, t: HostArray, w: HostArray | None, validation: Validation | None, held: HostArray
    ) -> Examples | None:
        """Rows to evaluate after each epoch, or None."""
        device = self._model.device
        if validation is not None:
            x_val, y_val, w_val = validation
            x_val, y_val = check_x_y(self, x_val, y_val, device, reset=False)
            x_val, t_val = features_of(self, x_val), self._targets(y_val, reset=False, held_out=True)
            check_outputs(self, t_val)
            w_val = BaseMLP._weights(self, on_host(device, w_val), y_val, incremental=False)  # without class weights
            self._compare(x, t, x_val, t_val)
            return Examples(self._model, x_val, t_val, w_val)
        if not len(held):
            return None
        x_held = x[device.asarray(held)] if lives_on(device, x) else x[held]
        return Examples(self._model, x_held, t[held], None if w is None else w[held])

    def _compare(self, x: Any, t: HostArray, x_held: Any, t_held: HostArray) -> None:
        """Warn where validation rows are on another scale than the training rows."""
        device = self._model.device
        why = "A Pipeline transforms X_val with transform_input=['X_val'], where fit requests it, and X alone without."
        warn_if_elsewhere(x, x_held, device, "X_val", "X", why, stacklevel=8)
        if self._y_numeric:
            why = "A TransformedTargetRegressor transforms y alone."
            warn_if_elsewhere(t, t_held, device, "y_val", "y", why, stacklevel=8)

    def _update_best(self, held_out: Examples | None) -> None:
        """Evaluate the model after an epoch, keep the best one, and count the epochs without improvement."""
        watched = self.loss_
        if held_out is not None:
            watched, score = self._validated(held_out)
            best_score = -np.inf if self.best_validation_score_ is None else self.best_validation_score_
            self.best_validation_score_ = max(best_score, score)
            if self.validation_scores_ is None or self.validation_loss_curve_ is None:
                self.validation_scores_, self.validation_loss_curve_ = [], []
            self.validation_scores_.append(score)
            self.validation_loss_curve_.append(watched)
            if self.verbose:
                print(f"Validation score: {score:f}")
        if self.restore_best and watched < self._best_watched:
            self._best_watched, self._best = watched, self._model.network.snapshot()
        if self.early_stopping:
            worse = score < best_score + self.tol
            if score > best_score and not self.restore_best:
                self._best = self._model.network.snapshot()
        else:
            best_loss = np.inf if self.best_loss_ is None else self.best_loss_
            worse = self.loss_ > best_loss - self.tol
            self.best_loss_ = min(best_loss, self.loss_)
        self._no_improvement_count = self._no_improvement_count + 1 if worse else 0

    def _validated(self, held_out: Examples) -> tuple[float, float]:
        """Loss, without penalty, and score on held-out rows, of an ensemble's joint prediction."""
        model = self._model
        loss = weight = 0.0
        outputs = []
        with few_threads(model, PREDICT_ROWS):
            for span in spans(len(held_out), held_out.at_once(PREDICT_ROWS)):
                rows = held_out.part(span)
                z = model.network.forward(rows.x)
                z = model.combine(z) if model.ensemble else z
                total, n, _ = model.loss(model.network.xp, z, rows.t, rows.w)
                loss += float(model.device.to_host(total))
                weight += float(model.device.to_host(n))
                outputs.append(model.device.to_host(model.loss.output(model.network.xp, z)))
        score = self._scored(held_out.t, np.concatenate(outputs), held_out.w)
        return self._reported(loss / weight, 0.0), score

    def _is_over(self, interrupt: DeferredInterrupt) -> bool:
        """Adjust the learning rate, and return whether training is over."""
        assert self._fitting is not None
        rule, ruled = self._fitting.optimizer, self.optimizer is None and self.solver == "sgd"
        if ruled and self.learning_rate == "invscaling":
            rule.learning_rate = float(self.learning_rate_init) / (self.t_ + 1) ** self.power_t
        stop = self.callback is not None and asks_to_stop(interrupt.call(self.callback, self))
        if self._no_improvement_count <= self.n_iter_no_change:
            return stop
        watched = "Validation score" if self.early_stopping else "Training loss"
        message = (
            f"{watched} did not improve more than tol={self.tol:f} for {self.n_iter_no_change} consecutive epochs."
        )
        adaptive = ruled and self.learning_rate == "adaptive"
        if not adaptive or rule.learning_rate <= LEAST_RATE:
            message += " Learning rate too small. Stopping." if adaptive else " Stopping."
        else:
            rule.learning_rate /= 5.0
            message += f" Setting learning rate to {rule.learning_rate:f}"
        if self.verbose:
            print(message)
        if message.endswith("Stopping."):
            return True
        self._no_improvement_count = 0
        return stop
