"""The five posts: their titles, and their figures with the counterpart of each."""

from __future__ import annotations

from dataclasses import dataclass

from ..experiment import Words


@dataclass(frozen=True)
class Figure:
    """A figure, formula or listing of a post.

    Attributes:
        text: what it shows.
        counterpart: the picture, diagram or section of the page that shows the same; "" for none.
    """

    text: Words
    counterpart: str = ""


@dataclass(frozen=True)
class Post:
    """A post.

    Attributes:
        number: as claims give it.
        title: its subject.
        figures: what it shows.
    """

    number: str
    title: Words
    figures: tuple[Figure, ...]


POSTS = (
    Post(
        "000",
        Words("Training a network: gradients", "신경망 학습: 기울기와 경사법"),
        (
            Figure(Words("the formula of an update", "매개변수 갱신 수식"), "descent"),
            Figure(Words("the gradient as arrows", "기울기의 벡터장"), "descent-field"),
            Figure(Words("numerical gradient, the program", "수치 미분 프로그램"), "gradients"),
            Figure(Words("rates too large and too small", "너무 크거나 작은 학습률"), "descent-rates"),
            Figure(Words("a saddle, and minima", "안장점과 극솟값"), "minima-saddle"),
            Figure(Words("the four steps of training", "학습의 네 단계"), "loop"),
        ),
    ),
    Post(
        "001",
        Words("Gradient descent", "경사 하강법"),
        (
            Figure(Words("the curve of the loss, and the start at 4", "손실 함수의 곡선과 시작점 4"), "surface-curve"),
            Figure(
                Words(
                    "descent at five rates and numbers of steps",
                    "학습률과 반복 횟수를 바꾼 다섯 가지 경사 하강법",
                ),
                "descent-parabola",
            ),
            Figure(Words("a surface with minima and a saddle", "최솟값과 안장점이 있는 곡면"), "surface-3d"),
            Figure(Words("a hundred starts", "시작점 100개"), "minima-starts"),
            Figure(Words("a rate that grows for a while", "학습률을 한동안 키운 경우"), "minima-schedules"),
        ),
    ),
    Post(
        "002",
        Words("Optimization of training", "신경망 학습 최적화"),
        (
            Figure(Words("the number of combinations of parameters", "매개변수 조합의 수"), "guessing-count"),
            Figure(Words("weights drawn at random, against SGD", "무작위로 고른 가중치와 SGD의 비교"), "guessing"),
            Figure(Words("the family tree of update rules", "갱신 방법의 계보"), "rules"),
            Figure(
                Words("paths of SGD, Momentum, AdaGrad and Adam", "SGD, 모멘텀, AdaGrad, Adam의 경로"), "zigzag-picture"
            ),
            Figure(Words("the loss of four rules on MNIST", "MNIST에서 네 방법의 손실"), "race-picture"),
        ),
    ),
    Post(
        "003",
        Words("Artificial neural networks", "인공 신경망"),
        (
            Figure(Words("a neuron: weighted sum and activation", "뉴런: 가중합과 활성화 함수"), "neuron"),
            Figure(Words("step, sigmoid and ReLU", "계단 함수, 시그모이드, ReLU"), "activations-picture"),
            Figure(Words("the cost of exp", "exp의 계산 비용"), "growth-cost"),
            Figure(Words("the logistic curve of a population", "개체군 성장의 로지스틱 곡선"), "growth"),
            Figure(Words("layers, forward and backward", "층과 순전파, 역전파"), "passes"),
            Figure(Words("one layer and several", "단층과 심층 신경망"), "depth-picture"),
            Figure(
                Words("outputs for two classes, several, and a number", "이진 분류, 다중 분류, 회귀의 출력층"),
                "outputs-picture",
            ),
            Figure(Words("weights that drift apart in training", "학습하면서 치우치는 가중치"), "drift"),
            Figure(Words("axes of arrays", "배열의 축"), "axes"),
            Figure(Words("a nerve cell", "생물의 신경 세포")),
            Figure(Words("installing TensorFlow and CUDA, on screens", "TensorFlow와 CUDA 설치 화면")),
        ),
    ),
    Post(
        "004",
        Words("Training deep networks", "심층 신경망의 학습"),
        (
            Figure(Words("descent that swings to and fro", "왔다 갔다 하며 수렴하는 경사 하강법"), "zigzag-picture"),
            Figure(Words("forward and back propagation", "순전파와 역전파"), "passes"),
            Figure(Words("the graph of logistic regression", "로지스틱 회귀의 계산 그래프"), "graph"),
            Figure(Words("sigmoid, tanh and ReLU", "시그모이드, tanh, ReLU"), "activations-picture"),
            Figure(Words("gradients that vanish", "기울기 소실"), "vanishing-gradients"),
            Figure(Words("batch normalization between layers", "층 사이의 배치 정규화"), "normalized"),
            Figure(Words("the lecture's title picture", "강의 제목 그림")),
        ),
    ),
)
