# Post 001, "Gradient descent". Lost in the post: the indentation, and what it leaves out of the second to the fifth
# case ("omitted"), which is the first case again; here a loop goes over the five.
import matplotlib.pyplot as plt
import numpy as np

x_ = np.arange(-4.5, 4.5, step=0.1)
y_ = x_**2
ends = []
for lr, iter_ in [(0.01, 5), (1.2, 5), (0.1, 5), (0.1, 50), (0.01, 500)]:
    x = 4
    y = x**2
    plt.figure(figsize=(8, 6))
    plt.plot(x_, y_)
    plt.xlabel("theta")
    plt.ylabel("Loss function J")
    plt.scatter(x, y, c="r", s=200)
    for _ in range(iter_):
        dy_dx = 2 * x
        x = x - lr * dy_dx
        y = x**2
        plt.scatter(x, y, c="g", s=200)
    plt.show()
    ends.append(x)
